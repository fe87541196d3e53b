"""The released workflow: from published files it trains what the scheduler trains, to the bit; refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.config.load import clone_with, load_config, save_config
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.incremental.released.run import is_released, run_released
from maskrcnn_benchmark.incremental.released.run import test_released as test_of_phase
from maskrcnn_benchmark.utils.errors import CheckpointError, ConfigError, DataError

Tool = Callable[..., None]
BASE, STEP = 12, 6


@pytest.fixture(scope="module")
def split(run_tool: Tool, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the derived files, and of index files for both steps in the scheduler's order."""
    folder = tmp_path_factory.mktemp("split")
    sources = ("--train", demo_data / "train.json", "--val", demo_data / "val.json")
    sizes = ("--base", BASE, "--steps", STEP, "--val-images", "all", "--prefix", "demo")
    run_tool("lvis_split", *sources, "--out", folder, *sizes)
    for phase, ranks in ((1, 1), (2, 2)):
        # one list with two images per batch, or two lists with one each
        shape = ("--ranks", ranks, "--samples", 6 // ranks, "--images-per-rank", 2 // ranks)
        files = ("--plan", folder, "--train", folder / f"demo_train_step{phase}.json", "--out", folder)
        run_tool("replay_indices", *files, "--phase", phase, *shape, "--order", "scheduler")
    return folder


@pytest.fixture(scope="module")
def released(
    finished: CfgNode, split: Path, demo_data: Path, run_tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> list[CfgNode]:
    """Configurations of base and two steps, trained one after another from files that the tools wrote."""
    folder = tmp_path_factory.mktemp("released")
    configs: list[CfgNode] = []
    for phase in range(3):
        if phase > 0:
            before = Path(configs[-1].OUTPUT_DIR) / "model_final.pth"
            run_tool(
                "grow_checkpoint", before, folder / f"init{phase}.pth", "--plan", split, "--phase", phase
            )
            kind = ("--json", folder / "logits1.json") if phase == 1 else ("--store", folder / "logits2")
            save_config(finished, folder / "model.yaml")
            step = split / f"demo_train_step{phase}.json"
            data = ("--annotations", step, "--images", demo_data / "images" / "train")
            ids = ("--sorted-ids", split / "lvis_sorted_id_all.json")
            model = ("--config-file", folder / "model.yaml", "--weights", before)
            run_tool("dump_distillation", *model, *data, *ids, *kind)
        configs.append(phase_cfg(finished, split, demo_data, folder, phase))
        save_config(configs[-1], folder / "phase.yaml")
        run_tool("train_net", "--config-file", folder / "phase.yaml", "--skip-test")
    return configs


def phase_cfg(finished: CfgNode, split: Path, demo_data: Path, folder: Path, phase: int) -> CfgNode:
    """The keys of the release for one phase of the tiny run."""
    name = f"step{phase}" if phase else "base"
    keys: dict[str, Any] = {
        "LST.ENABLED": False,
        "OUTPUT_DIR": str(folder / name),
        "DATASETS.SORTED_IDS": str(split / "lvis_sorted_id_all.json"),
        "DATASETS.TRAIN": (f"lvis:{split}/demo_train_{name}.json@{demo_data}/images/train",),
        "DATASETS.TEST": (f"lvis:{split}/demo_val_{name}.json@{demo_data}/images/val",),
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 1 + BASE + phase * STEP,
        "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 5 if phase else 0,
        "SOLVER.MAX_ITER": 3 if phase else 4,
    }
    if phase > 0:
        keys |= {
            "MODEL.WEIGHT": str(folder / f"init{phase}.pth"),
            "MODEL.QRY_BALANCE": True,
            "MODEL.QRY_INDICE_CLS": str(split / f"lvis_classes_qry_step{phase}_rand_balanced.json"),
            "MODEL.USE_DISTILL": True,
            "MODEL.DISTILL_WEIGHTS_FILE": str(folder / ("logits1.json" if phase == 1 else "logits2")),
            "MODEL.NUM_DISTILL_CLASSES": BASE + (phase - 1) * STEP,
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
            "MODEL.ROI_HEADS.SCORE_THRESH": 0.0,
            "SOLVER.BASE_LR": 0.002,
            "SOLVER.STEPS": (1, 2),
            "SOLVER.TEST_PERIOD": 2,
        }
    return clone_with(finished, [item for pair in keys.items() for item in pair])


def losses(folder: Path) -> list[dict[str, float]]:
    """Losses, gradient norm and rate of every iteration."""
    records = [r for r in read_metrics(folder / METRICS_FILE) if r["kind"] == "train"]
    return [{k: v for k, v in r.items() if "seconds" not in k and k not in ("time", "data")} for r in records]


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_losses_and_weights_equal_the_schedulers(
    finished: CfgNode, released: list[CfgNode], phase: int
) -> None:
    theirs, ours = Path(finished.OUTPUT_DIR) / f"phase_{phase}", Path(released[phase].OUTPUT_DIR)
    expected = losses(theirs)
    assert len(expected) == (3 if phase else 4) and ("loss_distill" in expected[0]) == (phase > 0)
    assert losses(ours) == expected
    weights = read_checkpoint(ours / "model_final.pth")
    reference = read_checkpoint(theirs / "model_final.pth")
    assert weights["classes"] == reference["classes"]
    assert all(torch.equal(weights["model"][name], tensor) for name, tensor in reference["model"].items())


def test_start_checkpoint_equals_the_schedulers(finished: CfgNode, released: list[CfgNode]) -> None:
    for phase in (1, 2):
        ours = read_checkpoint(released[phase].MODEL.WEIGHT)
        theirs = read_checkpoint(Path(finished.OUTPUT_DIR) / f"phase_{phase}" / "init.pth")
        assert ours["classes"] == theirs["classes"]
        assert all(torch.equal(ours["model"][name], tensor) for name, tensor in theirs["model"].items())


def test_periodic_tests_go_to_their_folder(released: list[CfgNode]) -> None:
    file = Path(released[1].OUTPUT_DIR) / "validation" / "0000002" / "demo_val_step1" / "metrics.json"
    assert set(json.loads(file.read_text())["tasks"]["bbox"]["groups"]) >= {"b0", "t0"}


def test_stand_alone_test_gives_the_schedulers_report(
    finished: CfgNode, released: list[CfgNode], tmp_path: Path, run_tool: Tool
) -> None:
    for phase in (0, 2):
        folder = Path(finished.OUTPUT_DIR) / f"phase_{phase}"
        save_config(released[phase], tmp_path / "phase.yaml")
        weights = ("--ckpt", folder / "model_final.pth")
        run_tool("test_net", "--config-file", tmp_path / "phase.yaml", *weights, "OUTPUT_DIR", tmp_path)
        name = f"demo_val_step{phase}" if phase else "demo_val_base"
        found = json.loads((tmp_path / "inference" / name / "metrics.json").read_text())["tasks"]
        expected = json.loads((folder / "report" / "metrics.json").read_text())["tasks"]
        for task, values in expected.items():
            assert found[task]["metrics"] == values["metrics"]
            groups = {n: ap for n, ap in found[task]["groups"].items() if n in ("b0", "t0", "t1")}
            assert list(groups) == ["b0", "t0", "t1"][: phase + 1]
            assert groups == {n: values["groups"][n] for n in groups}


def test_generate_distill_writes_the_published_file(released: list[CfgNode], tmp_path: Path) -> None:
    cfg = released[1]
    keys = {
        "OUTPUT_DIR": str(tmp_path),
        "MODEL.GENERATE_DISTILL": True,
        "MODEL.QRY_BALANCE": False,
        "MODEL.WEIGHT": str(Path(released[0].OUTPUT_DIR) / "model_final.pth"),
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 1 + BASE,
    }
    run_released(clone_with(cfg, [item for pair in keys.items() for item in pair]))
    written = json.loads((tmp_path / "distilled_logits.json").read_text())
    assert written == json.loads(Path(cfg.MODEL.DISTILL_WEIGHTS_FILE).read_text())
    assert len(DistillStore(tmp_path / "distill")) == len(written[0])


def test_choice_of_the_path(finished: CfgNode, released: list[CfgNode]) -> None:
    assert all(is_released(cfg) for cfg in released)
    assert not is_released(finished) and not is_released(clone_with(finished, ["LST.ENABLED", False]))


def fails(cfg: CfgNode, changes: dict[str, Any], error: type[Exception], words: str, folder: Path) -> None:
    """A run with changed keys, in a new folder, stops with one line that holds `words`."""
    changed = {"OUTPUT_DIR": str(folder / "out"), **changes}
    with pytest.raises(error, match=words) as caught:
        run_released(clone_with(cfg, [item for pair in changed.items() for item in pair]), test=False)
    assert "\n" not in str(caught.value)
    assert not (folder / "out" / "model_final.pth").exists()


def test_wrong_sorted_ids(released: list[CfgNode], split: Path, tmp_path: Path) -> None:
    step, base = released[1], released[0]
    ids = json.loads((split / "lvis_sorted_id_all.json").read_text())
    file = tmp_path / "ids.json"
    use = {"DATASETS.SORTED_IDS": str(file)}
    for wrong, words in (
        (ids[:15], "has 15 ids, but this phase has 18 classes"),
        ([*ids[:17], ids[0]], "names a category twice"),
        (ids[::-1], "such ids.*must be of one phase of one split"),
        ({"a": 1}, "expected a JSON list"),
        ([*ids[1:18], 999], "must be of one phase"),
    ):
        file.write_text(json.dumps(wrong))
        fails(step, use, DataError, words, tmp_path)
    # the right classes in another order: seen by the class list of the start weights, else by the index files
    file.write_text(json.dumps([*ids[10:12], *ids[:10], *ids[12:]]))
    fails(step, use, CheckpointError, 'label 1 is ".*", expected .* class order', tmp_path)
    bare = tmp_path / "bare.pth"
    save_atomic({"model": read_checkpoint(step.MODEL.WEIGHT)["model"]}, bare)
    off = {**use, "MODEL.WEIGHT": str(bare), "MODEL.USE_DISTILL": False}
    fails(
        step, off, DataError, r"entry \d+ of list 0 samples class .* which has none.*replay_indices", tmp_path
    )
    fails(step, {"DATASETS.SORTED_IDS": ""}, ConfigError, "need DATASETS.SORTED_IDS", tmp_path)
    fails(base, {"DATASETS.TRAIN": step.DATASETS.TRAIN}, DataError, "has objects of category", tmp_path)


def test_checkpoint_of_other_classes(released: list[CfgNode], tmp_path: Path) -> None:
    final = Path(released[0].OUTPUT_DIR) / "model_final.pth"
    fails(released[1], {"MODEL.WEIGHT": str(final)}, CheckpointError, "label 13 is .nothing.", tmp_path)
    bare = tmp_path / "bare.pth"
    save_atomic({"model": read_checkpoint(final)["model"]}, bare)
    fails(released[1], {"MODEL.WEIGHT": str(bare)}, CheckpointError, r"cls_score.*NUM_CLASSES", tmp_path)
    with pytest.raises(CheckpointError, match=r"cls_score.weight has shape \(19, 32\).*NUM_CLASSES"):
        test_of_phase(released[2], str(Path(released[1].OUTPUT_DIR) / "model_final.pth"))
    renamed = tmp_path / "renamed.pth"
    stored = read_checkpoint(Path(released[1].OUTPUT_DIR) / "model_final.pth")
    save_atomic({"model": stored["model"], "classes": stored["classes"][::-1]}, renamed)
    with pytest.raises(CheckpointError, match="class order and settings of its run"):
        test_of_phase(released[1], str(renamed))


def test_missing_distillation_entries(released: list[CfgNode], split: Path, tmp_path: Path) -> None:
    step = released[1]
    content = json.loads(Path(step.MODEL.DISTILL_WEIGHTS_FILE).read_text())
    image = next(iter(content[0]))
    file = tmp_path / "logits.json"
    use = {"MODEL.DISTILL_WEIGHTS_FILE": str(file)}
    file.write_text(json.dumps([{k: v for k, v in part.items() if k != image} for part in content]))
    fails(step, use, DataError, f"no distillation entry.*of image {image}.*dump_distillation", tmp_path)
    file.write_text(json.dumps([part | {image: part[image][:-1]} for part in content]))
    fails(step, use, DataError, f"image {image} has rows of shape", tmp_path)
    file.write_text(json.dumps([content[0], {}]))
    fails(step, use, DataError, "differ between the flips", tmp_path)
    fails(step, {"MODEL.DISTILL_WEIGHTS_FILE": ""}, ConfigError, "needs MODEL.DISTILL_WEIGHTS_FILE", tmp_path)
    fails(
        released[2],
        {"MODEL.NUM_DISTILL_CLASSES": 12},
        DataError,
        "18 old classes, this step has 12",
        tmp_path,
    )
    fails(step, {"MODEL.NUM_DISTILL_CLASSES": 18}, ConfigError, "18, but this phase has 18", tmp_path)
    fails(step, {"INPUT.MIN_SIZE_TRAIN": (64, 80)}, ConfigError, "set MODEL.USE_DISTILL False", tmp_path)


def test_store_of_other_classes(released: list[CfgNode], tmp_path: Path) -> None:
    shutil.copytree(released[2].MODEL.DISTILL_WEIGHTS_FILE, tmp_path / "store")
    header = tmp_path / "store" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"classes_hash": "0" * 64}))
    use = {"MODEL.DISTILL_WEIGHTS_FILE": str(tmp_path / "store")}
    fails(released[2], use, DataError, "stored for other classes.*sorted ids", tmp_path)


def test_index_files_of_something_else(
    released: list[CfgNode], split: Path, tmp_path: Path, run_tool: Tool
) -> None:
    step = released[1]
    options = ("--plan", split, "--phase", 1, "--out", tmp_path, "--samples", 6)
    run_tool("replay_indices", "--train", split / "demo_train_step1.json", *options, "--ranks", 4)
    use = {"MODEL.QRY_INDICE_CLS": str(tmp_path / "lvis_classes_qry_step1_rand_balanced.json")}
    fails(step, use, DataError, "holds 4 lists.*multiple of 4.*replay_indices", tmp_path)
    other = {"MODEL.QRY_INDICE_CLS": str(split / "lvis_classes_qry_step2_rand_balanced.json")}
    fails(step, other, DataError, "lvis_.*_qry_step2", tmp_path)
    fails(step, {"MODEL.QRY_INDICE_CLS": ""}, ConfigError, "needs the index files", tmp_path)
    fails(
        step, {"MODEL.QRY_INDICE_CLS": str(tmp_path / "x.json")}, ConfigError, "in QRY_INDICE_IMG", tmp_path
    )


def test_dump_settings_are_checked(released: list[CfgNode], tmp_path: Path) -> None:
    dump = {"MODEL.GENERATE_DISTILL": True, "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 13}
    fails(released[1], {"MODEL.GENERATE_DISTILL": True}, ConfigError, "= 13, found 19", tmp_path)
    fails(released[1], {**dump, "MODEL.WEIGHT": ""}, ConfigError, "needs MODEL.WEIGHT", tmp_path)
    fails(released[1], {**dump, "LST.DISTILL.FLIPS": (0,)}, ConfigError, "both views", tmp_path)
    fails(released[0], dump, ConfigError, "NUM_DISTILL_CLASSES", tmp_path)
    fails(released[1], dump, CheckpointError, "label 13", tmp_path)


def test_released_configurations_follow_the_rule(project_root: Path) -> None:
    epochs = (41502, 20623, 12467, 7643, 3741, 1597)  # samples of a balanced epoch at LVIS size
    folder = project_root / "configs" / "lst" / "released"
    for step, epoch in enumerate(epochs, start=1):
        cfg, dump = (load_config(folder / f"{name}{step}.yaml") for name in ("step", "distill"))
        old = 270 + 160 * (step - 1)
        assert -(-12 * epoch // cfg.SOLVER.IMS_PER_BATCH) == cfg.SOLVER.MAX_ITER
        assert (
            tuple(round(cfg.SOLVER.MAX_ITER * fraction) for fraction in (5 / 12, 7 / 12)) == cfg.SOLVER.STEPS
        )
        assert (old, old + 161) == (cfg.MODEL.NUM_DISTILL_CLASSES, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)
        assert (old, old + 1) == (dump.MODEL.NUM_DISTILL_CLASSES, dump.MODEL.ROI_BOX_HEAD.NUM_CLASSES)
        assert (cfg.MODEL.QRY_BALANCE, cfg.MODEL.USE_DISTILL, cfg.MODEL.GENERATE_DISTILL) == (
            True,
            True,
            False,
        )
        assert dump.MODEL.GENERATE_DISTILL and is_released(dump) and is_released(cfg)
        assert cfg.DATASETS.TRAIN == dump.DATASETS.TRAIN == (f"lvis_v0.5_train_step{step}_160",)
        assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS, cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT) == (
            0.005,
            0,
            5,
        )
        assert (cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.SCORE_THRESH) == (200, 0.0)
        assert cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN == 1000 and cfg.SOLVER.TEST_PERIOD == 5000
    base = load_config(folder / "base.yaml")
    assert (base.SOLVER.MAX_ITER, base.SOLVER.STEPS, base.SOLVER.WARMUP_ITERS) == (50000, (30000, 40000), 500)
    assert base.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 512 and is_released(base)
