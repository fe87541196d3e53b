"""The published set of annotation files: names, contents, and copying the text of large files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.split import derive_train_annotations, derive_val_annotations
from maskrcnn_benchmark.incremental.plan.split_files import write_split_files
from maskrcnn_benchmark.utils.errors import DataError


@pytest.fixture
def sources(golden: dict[str, Any]) -> tuple[AnnotationFile, AnnotationFile]:
    """Training and validation annotations of the reference data set."""
    return AnnotationFile(golden["lvis_mini_train"]), AnnotationFile(golden["lvis_mini_val"])


def test_names_and_sorted_ids(
    golden: dict[str, Any],
    mini_plan: PhasePlan,
    sources: tuple[AnnotationFile, AnnotationFile],
    tmp_path: Path,
) -> None:
    paths = write_split_files(*sources, mini_plan, tmp_path, "lvis_v0.5")
    names = {p.name for p in paths}
    assert {"lvis_sorted_id_all.json", "lvis_sorted_id_base.json", "lvis_sorted_id_step_2.json"} <= names
    assert {"lvis_v0.5_train_base.json", "lvis_v0.5_val_step1.json", "lvis_v0.5_train_step2.json"} <= names
    assert len(names) == 11 == len(list(tmp_path.iterdir()))
    assert (
        json.loads((tmp_path / "lvis_sorted_id_step_1.json").read_text())
        == golden["splits"]["sorted_id_step1"]
    )
    assert read_plan(tmp_path) == mini_plan == read_plan(tmp_path / "classes.json")


@pytest.mark.parametrize("rule", ["all", "positive"])
def test_indexed_source_gives_the_same_files(
    golden: dict[str, Any], golden_lst: Path, mini_plan: PhasePlan, tmp_path: Path, rule: str
) -> None:
    files = [
        AnnotationFile.load(golden_lst / f"lvis_mini_{part}.json", index_from=0) for part in ("train", "val")
    ]
    write_split_files(*files, mini_plan, tmp_path, "mini", val_rule=rule, phase_folders=True)
    for phase, folder in enumerate(("lvis_base_6", "lvis_step1_5", "lvis_step2_5")):
        name = "base" if phase == 0 else f"step{phase}"
        written = {
            part: json.loads((tmp_path / folder / f"mini_{part}_{name}.json").read_text())
            for part in ("train", "val")
        }
        assert written["train"] == derive_train_annotations(golden["lvis_mini_train"], mini_plan, phase)
        assert written["val"] == derive_val_annotations(golden["lvis_mini_val"], mini_plan, phase, rule)


def test_plan_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="lists no classes with phases; give the classes.json"):
        read_plan(tmp_path)
