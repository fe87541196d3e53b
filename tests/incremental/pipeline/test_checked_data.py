"""The data of all phases is checked before phase 0 trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.utils.errors import DataError

CASES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "test mask": (
        "VAL",
        lambda c: c["annotations"][-1].pop("segmentation"),
        r"annotation \d+ has no segmentation",
    ),
    "test image": (
        "VAL",
        lambda c: c["images"][0].update(file_name="gone.jpg"),
        r"gone\.jpg; 1 of \d+ images",
    ),
    "no annotations": ("VAL", lambda c: c.pop("annotations"), "name a file with annotations in LST.ANN_VAL"),
    "training image": ("TRAIN", lambda c: c["images"][0].update(file_name="gone.jpg"), "gone.jpg; 1 of"),
    "training polygon": (
        "TRAIN",
        lambda c: c["annotations"][0].update(segmentation=[[1, 2], [3, 4], [5, 9]]),
        "a polygon written as 3 points",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_refused_before_the_base_phase(
    make_tiny_cfg: Callable[[Path], CfgNode], tmp_path: Path, case: str
) -> None:
    part, change, message = CASES[case]
    cfg = make_tiny_cfg(tmp_path / "run")
    content = json.loads(Path(cfg.LST[f"ANN_{part}"]).read_text())
    change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        run_lst(clone_with(cfg, [f"LST.ANN_{part}", str(path)]))
    assert not (tmp_path / "run" / "phase_0" / "metrics.jsonl").exists()
