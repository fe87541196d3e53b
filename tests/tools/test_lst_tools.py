"""Tools for LST data and checkpoints: files equal the reference ones and are read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.evaluation.groups import step_state_groups
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.incremental.plan.split import check_sorted_ids
from maskrcnn_benchmark.incremental.replay.index_files import read_index_files
from maskrcnn_benchmark.utils.errors import CheckpointError, ConfigError, DataError, UsageError
from maskrcnn_benchmark.utils.files import write_json

RunTool = Callable[..., None]
BOX = "roi_heads.box.predictor"
MASK = "roi_heads.mask.predictor"
TOOLS = (
    "lvis_split",
    "replay_indices",
    "dump_distillation",
    "grow_checkpoint",
    "trim_checkpoint",
    "convert_distillation",
    "lst_report",
)


@pytest.fixture(scope="module")
def golden(project_root: Path) -> Path:
    """Folder of the reference outputs: 16 classes, base 6, two steps of 5."""
    return project_root / "tests" / "parity" / "golden" / "lst"


@pytest.fixture(scope="module")
def split(golden: Path, run_tool: RunTool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that `lvis_split` writes for the reference data set."""
    folder = tmp_path_factory.mktemp("split")
    sources = ("--train", golden / "lvis_mini_train.json", "--val", golden / "lvis_mini_val.json")
    run_tool("lvis_split", *sources, "--out", folder, "--base", 6, "--steps", 5)
    return folder


def load(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", TOOLS)
def test_help_shows_examples(run_tool: RunTool, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_tool(name, "--help")
    assert stopped.value.code == 0
    assert f"    python tools/{name}.py " in capsys.readouterr().out


def test_split_files_equal_the_reference(golden: Path, split: Path) -> None:
    expected, labels = load(golden / "splits.json"), load(golden / "eval.json")["_phase_of_category"]
    ids = {a["id"]: a for a in load(golden / "lvis_mini_train.json")["annotations"]}
    assert load(split / "lvis_sorted_id_all.json") == expected["sorted_id_all"]
    for phase, name in enumerate(("base", "step1", "step2")):
        file = f"lvis_sorted_id_{'base' if phase == 0 else f'step_{phase}'}.json"
        assert load(split / file) == expected[f"sorted_id_{name}"]
        train, val = (
            AnnotationFile.load(split / f"lvis_v0.5_{part}_{name}.json") for part in ("train", "val")
        )
        for part, found in (("train", train), ("val", val)):
            reference = expected["splits"][f"{part}_{name}"]
            assert [i["id"] for i in found.raw["images"]] == reference["image_ids"]
            assert [c["id"] for c in found.raw["categories"]] == reference["category_ids"]
            assert sorted(a["id"] for a in found.raw["annotations"]) == sorted(reference["annotation_ids"])
        assert all(annotation == ids[annotation["id"]] for annotation in train.raw["annotations"])
        groups = step_state_groups(val.categories)
        assert all(labels[str(c)] == name for name, some in groups.items() for c in some)


def test_split_rules_and_order(golden: Path, run_tool: RunTool, tmp_path: Path, split: Path) -> None:
    sources = ("--train", golden / "lvis_mini_train.json", "--val", golden / "lvis_mini_val.json")
    own = load(split / "lvis_sorted_id_all.json")[::-1]
    write_json(tmp_path / "order.json", own)
    options = ("--order", tmp_path / "order.json", "--base", 4, "--steps", 6, 6, "--val-images", "all")
    run_tool("lvis_split", *sources, "--out", tmp_path, *options, "--phase-folders", "--prefix", "mini")
    plan = read_plan(tmp_path)
    assert plan.sizes == (4, 6, 6) and plan.seen_ids(2) == own
    val = load(tmp_path / "lvis_step1_6" / "mini_val_step1.json")
    assert len(val["images"]) == 32 and {c["id"] for c in val["categories"]} == set(own[:10])
    assert check_sorted_ids(own, load(golden / "lvis_mini_train.json"), "order") == own
    only = tmp_path / "only"
    run_tool("lvis_split", *sources, "--out", only, "--base", 6, "--steps", 5, "--plan-only")
    assert [p.name for p in only.iterdir()] == ["classes.json"] and read_plan(only) == read_plan(split)
    write_json(tmp_path / "order.json", own[:-1])
    with pytest.raises(DataError, match=r"order.json: the list must name each of the 16 categories"):
        run_tool("lvis_split", *sources, "--out", only, "--order", tmp_path / "order.json")
    with pytest.raises(ConfigError, match="cover 270|expected 1..16"):
        run_tool("lvis_split", *sources, "--out", only)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("mode", ["in_order", "shuffled"])
@pytest.mark.parametrize("source", ["whole", "derived"])
def test_index_files_equal_the_reference(
    golden: Path, split: Path, run_tool: RunTool, tmp_path: Path, step: int, mode: str, source: str
) -> None:
    arrays, info = np.load(golden / "replay.npz"), load(golden / "replay.json")
    train = (
        golden / "lvis_mini_train.json" if source == "whole" else split / f"lvis_v0.5_train_step{step}.json"
    )
    order = ("--in-order",) if mode == "in_order" else ("--shuffle-seed", info["python_random_seed"] + step)
    size = ("--ranks", info["n_gpu"], "--samples", info["n_iter"])
    run_tool(
        "replay_indices", "--plan", split, "--train", train, "--phase", step, "--out", tmp_path, *size, *order
    )
    names = (f"lvis_{what}_qry_step{step}_rand_balanced.json" for what in ("indices", "classes"))
    indices, classes = (tmp_path / name for name in names)
    assert load(indices) == arrays[f"step{step}_{mode}_images"].tolist()
    assert load(classes) == arrays[f"step{step}_{mode}_classes"].tolist()
    images = len(info["steps"][str(step)]["dataset_image_ids"])
    back = read_index_files(indices, classes, num_images=images, num_classes=6 + 5 * step)
    assert back[0].shape == (info["n_gpu"], info["n_iter"])


def test_replay_statistics(
    golden: Path, split: Path, run_tool: RunTool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--plan", split / "classes.json", "--train", golden / "lvis_mini_train.json", "--phase", 2)
    run_tool("replay_indices", *options, "--statistics", "--json", tmp_path / "s.json", "--rows", 3)
    text, numbers = capsys.readouterr().out, load(tmp_path / "s.json")
    expected = load(golden / "replay.json")["steps"]["2"]
    assert numbers["epoch_length"] == expected["epoch_length_formula"]
    assert [c["draws"] for c in numbers["classes"]][:11] == expected["avg_sample_num"]
    assert [c["instances"] for c in numbers["classes"]] == expected["instances_per_class"]
    assert {c["group"] for c in numbers["classes"]} == {"b0", "t0", "t1"}
    for c in numbers["classes"]:
        assert c["instances_after"] == pytest.approx(c["draws"] * c["instances"] / c["images"])
    assert "Step 2" in text and "mean after" in text and text.count("\n") < 30
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_replay_options_are_checked(golden: Path, split: Path, run_tool: RunTool, tmp_path: Path) -> None:
    options = ("--plan", split, "--train", golden / "lvis_mini_train.json", "--out", tmp_path)
    for more, words in (
        (("--phase", 0), "give a step from 1 to 2"),
        (("--phase", 7), "no phase 7"),
        (("--phase", 1, "--ranks", 0), "at least 1"),
        (("--phase", 1, "--order", "scheduler", "--samples", 5), "multiple of 2"),
    ):
        with pytest.raises(UsageError, match=words):
            run_tool("replay_indices", *options, *more)
    with pytest.raises(ConfigError, match="--out"):
        run_tool("replay_indices", *options[:4], "--phase", 1)


@pytest.fixture
def logits(split: Path, tmp_path: Path) -> Path:
    """A released file for step 1 with random float32 values."""
    rng = np.random.default_rng(0)
    order = load(split / "lvis_sorted_id_all.json")
    boxes: dict[str, int] = {}
    for annotation in load(split / "lvis_v0.5_train_step1.json")["annotations"]:
        if order.index(annotation["category_id"]) >= 6 and min(annotation["bbox"][2:]) > 1:
            boxes[str(annotation["image_id"])] = boxes.get(str(annotation["image_id"]), 0) + 1
    content = [
        {
            image: rng.normal(size=(n, 7)).astype(np.float32).astype(float).tolist()
            for image, n in boxes.items()
        }
        for _ in range(2)
    ]
    write_json(tmp_path / "logits.json", content)
    return tmp_path / "logits.json"


def test_conversion_is_lossless(split: Path, logits: Path, run_tool: RunTool, tmp_path: Path) -> None:
    data = ("--plan", split, "--train", split / "lvis_v0.5_train_step1.json", "--phase", 1)
    run_tool("convert_distillation", logits, tmp_path / "store", *data)
    run_tool("convert_distillation", tmp_path / "store", tmp_path / "back.json")
    back, content = load(tmp_path / "back.json"), load(logits)
    assert back == content
    assert DistillStore(tmp_path / "store").header.num_old == 6
    run_tool("convert_distillation", logits, tmp_path / "half", *data, "--dtype", "float16")
    image = next(iter(content[0]))
    stored = DistillStore(tmp_path / "half").read(int(image), 1).cosines
    np.testing.assert_array_equal(stored, np.array(content[1][image], np.float16))
    with pytest.raises(ConfigError, match="give --plan, --train and --phase"):
        run_tool("convert_distillation", logits, tmp_path / "store")
    with pytest.raises(DataError, match="has rows of shape"):
        run_tool("convert_distillation", logits, tmp_path / "other", *data[:-1], 2)
    content[0].pop(image)
    content[1].pop(image)
    write_json(logits, content)
    with pytest.raises(DataError, match=f"no distillation entry.*image {image}"):
        run_tool("convert_distillation", logits, tmp_path / "other", *data)


def checkpoint(rows: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Heads of a detector, and two other tensors."""
    made = torch.Generator().manual_seed(0)
    shapes = {
        f"{BOX}.cls_score.weight": (rows, 8),
        f"{BOX}.cls_score.bias": (rows,),
        f"{BOX}.bbox_pred.weight": (4 * rows, 8),
        f"{BOX}.bbox_pred.bias": (4 * rows,),
        f"{MASK}.mask_fcn_logits.weight": (rows, 4, 1, 1),
        f"{MASK}.mask_fcn_logits.bias": (rows,),
        f"{MASK}.conv5_mask.weight": (4, 4, 2, 2),
        "backbone.body.stem.conv1.weight": (4, 3, 7, 7),
    }
    return {prefix + name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("extra", [{}, {"optimizer": {}, "scheduler": {}, "iteration": 9, "classes": ["a"]}])
def test_trim(run_tool: RunTool, tmp_path: Path, prefix: str, extra: dict[str, Any]) -> None:
    source, target = tmp_path / "coco.pth", tmp_path / "trimmed.pth"
    state = checkpoint(81, prefix)
    save_atomic({"model": state, **extra}, source)
    run_tool("trim_checkpoint", source, target)
    trimmed = read_checkpoint(target)
    assert set(trimmed) == {"model"}
    kept = {f"{prefix}{MASK}.conv5_mask.weight", f"{prefix}backbone.body.stem.conv1.weight"}
    assert set(trimmed["model"]) == kept and all(torch.equal(trimmed["model"][n], state[n]) for n in kept)
    with pytest.raises(CheckpointError, match="trimmed already"):
        run_tool("trim_checkpoint", target, tmp_path / "again.pth")
    run_tool("trim_checkpoint", "--keep-heads", source, target)
    assert set(read_checkpoint(target)) == {"model"} and set(read_checkpoint(target)["model"]) == set(state)


def test_trim_refuses_other_files(run_tool: RunTool, tmp_path: Path) -> None:
    (tmp_path / "c2.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match="Caffe2"):
        run_tool("trim_checkpoint", tmp_path / "c2.pkl", tmp_path / "out.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        run_tool("trim_checkpoint", tmp_path / "gone.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_growth(split: Path, run_tool: RunTool, tmp_path: Path, prefix: str) -> None:
    plan, state = read_plan(split), checkpoint(7, prefix)
    source, target = tmp_path / "base.pth", tmp_path / "init.pth"
    save_atomic({"model": state, "optimizer": {}, "classes": plan.names(0)}, source)
    run_tool("grow_checkpoint", source, target, "--plan", split, "--phase", 1)
    grown = read_checkpoint(target)
    assert set(grown) == {"model", "classes"} and grown["classes"] == plan.names(1)
    assert torch.equal(
        grown["model"][f"{prefix}{BOX}.cls_score.weight"][:7], state[f"{prefix}{BOX}.cls_score.weight"]
    )
    run_tool("grow_checkpoint", source, tmp_path / "bare.pth", "--add", 5, "--phase", 1)
    bare = read_checkpoint(tmp_path / "bare.pth")
    assert "classes" not in bare
    assert all(torch.equal(bare["model"][name], tensor) for name, tensor in grown["model"].items())
    with pytest.raises(CheckpointError, match="class order and settings"):
        run_tool("grow_checkpoint", source, target, "--plan", split, "--phase", 2)
    with pytest.raises(ConfigError, match="give at least 1 class"):
        run_tool("grow_checkpoint", source, target, "--add", 0)


def report(folder: Path, phase: int, ap: float, groups: dict[str, float]) -> None:
    """A phase report as a run leaves it."""
    values = {"metrics": {"AP": ap, "AP50": 2 * ap}, "groups": {**groups, "instances (0,10)": ap}}
    write_json(folder / f"phase_{phase}" / "report" / "metrics.json", {"tasks": {"segm": values}})


def test_reports_of_runs(
    split: Path, run_tool: RunTool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, later in (("full", 0.28), ("none", 0.1)):
        run = tmp_path / name
        run.mkdir()
        (run / "classes.json").write_text((split / "classes.json").read_text())
        report(run, 0, 0.3, {"b0": 0.3})
        report(run, 1, 0.25, {"b0": later, "t0": 0.2})
    stage = {"stage": "phase_2/train", "inputs": {}, "config": "", "finished": None}
    write_json(
        tmp_path / "none" / "state.json", {"version": 1, "stages": {"phase_2/train": stage}, "files": {}}
    )
    line = {"kind": "train", "iteration": 40, "loss": 1.25}
    (tmp_path / "none" / "phase_2").mkdir()
    (tmp_path / "none" / "phase_2" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    run_tool("lst_report", tmp_path / "full")
    assert "phase" in (single := capsys.readouterr().out) and "side by side" not in single
    out = ("--out", tmp_path / "png", "--json", tmp_path / "runs.json")
    run_tool("lst_report", tmp_path / "full", tmp_path / "none", *out, "--names", "whole", "ablated")
    text, numbers = capsys.readouterr().out, load(tmp_path / "runs.json")
    assert "classes that lost most segm AP" in text
    assert "ablated: now at phase_2/train, iteration 40, loss 1.250" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("whole ", "ablated "))]
    assert ["whole", "0.3", "0.25"] in rows
    assert ["ablated", "1", "0.25", "0.10", "0.2", "0.25", "0.20"] in rows
    assert numbers["whole"]["phases"][1]["tasks"]["segm"]["forgetting"]["b0"] == pytest.approx(0.02)
    assert numbers["ablated"]["running"].startswith("phase_2/train")
    drawn = {p.name: Image.open(p).size for p in (tmp_path / "png").iterdir()}
    assert set(drawn) == {"whole.png", "ablated.png", "comparison.png"}
    assert all(width > 2 * height for width, height in drawn.values())  # AP and forgetting side by side
    with pytest.raises(DataError, match="no folder of an LST run"):
        run_tool("lst_report", tmp_path)
    with pytest.raises(ConfigError, match="equal names"):
        run_tool("lst_report", tmp_path / "full", tmp_path / "full")
    with pytest.raises(ConfigError, match="2 names for 1 runs"):
        run_tool("lst_report", tmp_path / "full", "--names", "a", "b")
