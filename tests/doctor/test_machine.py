"""Memory, workers, batches, the output folder and its disk."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.doctor import loading, memory, storage
from maskrcnn_benchmark.doctor.loading import check_loading
from maskrcnn_benchmark.doctor.memory import BatchShape, batch_shape, check_memory
from maskrcnn_benchmark.doctor.memory_profile import matching_bytes, step_peak
from maskrcnn_benchmark.doctor.models import meta_model, model_size
from maskrcnn_benchmark.doctor.storage import check_storage
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model

Disk = namedtuple("Disk", "total used free")
GB = 1 << 30


def test_model_size_counts_what_a_real_model_holds(plain) -> None:
    cfg = plain("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 2).cfg
    size, model = model_size(meta_model(cfg)), build_detection_model(cfg)
    assert size.weights == sum(t.numel() * 4 for t in (*model.parameters(), *model.buffers()))
    assert size.trained == sum(p.numel() * 4 for p in model.parameters() if p.requires_grad) < size.weights
    adam = clone_with(cfg, ["SOLVER.OPTIMIZER", "ADAMW"])
    plain_sgd = clone_with(cfg, ["SOLVER.MOMENTUM", 0.0])
    assert [size.optimizer(c) for c in (cfg, adam, plain_sgd)] == [size.trained, 2 * size.trained, 0]


def test_step_peak_grows_as_a_step_does(plain) -> None:
    cfg = plain().cfg
    one = step_peak(cfg, images=1, height=256, width=256)
    assert 1.8 * one < step_peak(cfg, images=2, height=256, width=256) < 2.1 * one
    assert one > 256 * 256 * 3 * 4
    frozen = clone_with(cfg, ["MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 5])
    assert step_peak(frozen, images=1, height=256, width=256) < one
    half = clone_with(cfg, ["DTYPE", "bfloat16"])
    assert step_peak(half, images=1, height=256, width=256) < 0.85 * one


def test_step_peak_is_that_of_a_real_forward_pass(plain) -> None:
    """Saved tensors of the backbone, counted by autograd on real tensors, are within the peak."""
    cfg = clone_with(plain().cfg, ["MODEL.RPN_ONLY", True])
    model = build_detection_model(cfg).train()
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model.rpn.head(model.backbone(torch.zeros(1, 3, 192, 192)))
    assert outputs
    peak = step_peak(cfg, images=1, height=192, width=192)
    assert sum(saved.values()) <= peak <= 1.6 * sum(saved.values())


@pytest.mark.parametrize("name", ["fcos", "sipmask", "sipmask_plusplus"])
def test_steps_of_heads_without_anchors(project_root: Path, name: str) -> None:
    cfg = load_config(project_root / f"configs/tiny/{name}.yaml")
    one = step_peak(cfg, images=1, height=256, width=256)
    assert 1.6 * one < step_peak(cfg, images=2, height=256, width=256) < 2.2 * one
    few, many = (matching_bytes(cfg, objects, 800, 1344) for objects in (1, 5))
    points = sum(-(-800 // stride) * -(-1344 // stride) for stride in (8, 16, 32, 64, 128))
    assert many == 5 * few and few >= 4 * points


def test_matching_is_bounded(plain) -> None:
    cfg = plain().cfg
    few, many, most = (matching_bytes(cfg, n, 800, 1344) for n in (1, 5, 5000))
    assert few < many < most < 100 << 20


def test_batch_shape_comes_from_the_images(plain, lst, edited, data: Path) -> None:
    def widen(content: dict) -> None:
        content["images"][0].update(width=120, height=60)
        content["images"][1].update(width=60, height=120)

    path = edited(widen)
    sizes = ("INPUT.MAX_SIZE_TRAIN", 128, "SOLVER.IMS_PER_BATCH", 6)
    name = f"('lvis:{path}@{data}/images/train',)"
    checkup = plain("DATASETS.TRAIN", name, *sizes, processes=4)
    shape = batch_shape(checkup, checkup.jobs[0])  # landscape and portrait stay apart
    assert shape.measured and shape.images == 2 and shape.height * shape.width == 64 * 128
    checkup = lst("LST.ANN_TRAIN", path, *sizes, "DATALOADER.SIZE_DIVISIBILITY", 100)
    assert batch_shape(checkup, checkup.jobs[1]) == BatchShape(6, 200, 200, True)
    checkup = plain(*sizes, quick=True)
    assert batch_shape(checkup, checkup.jobs[0]) == BatchShape(6, 64, 128, False)


def test_memory_against_what_is_free(plain, the, monkeypatch: pytest.MonkeyPatch) -> None:
    assert the(check_memory, plain(), "ok", "about")
    needed = None
    for free, level in ((100 << 20, "error"), (1 << 40, "ok")):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        finding = the(check_memory, plain(), level, "images of 64 x 64")
        needed = finding.text
    assert needed is not None and "activations" in needed
    monkeypatch.setattr(memory, "free_memory", lambda: 560 << 20)
    finding = the(check_memory, plain(), "warning", "of main memory are free")
    assert "set SOLVER.IMS_PER_BATCH 2 SOLVER.ACCUMULATION_STEPS 2" in finding.advice
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert the(check_memory, plain(), "note", "is not known")


def test_memory_of_workers_and_processes(plain, the, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: GB)
    checkup = plain("DATALOADER.NUM_WORKERS", 8, processes=2)
    assert "their data workers (8)" in the(check_memory, checkup, "error", "for processes (2)").text


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is for machines without a GPU")
def test_a_gpu_that_is_not_there(plain, the) -> None:
    finding = the(check_memory, plain("MODEL.DEVICE", "cuda", quick=True), "error", "MODEL.DEVICE is 'cuda'")
    assert "MODEL.DEVICE auto" in finding.advice


def test_batches_that_do_not_divide(plain, lst, the, worst) -> None:
    finding = the(check_loading, plain(processes=3), "error", "4 images per batch cannot be divided among 3")
    assert finding.advice.startswith("set SOLVER.IMS_PER_BATCH 3")
    assert the(check_loading, plain(processes=2), "ok", "2 images per batch and process")
    finding = the(check_loading, lst("LST.SOLVER_STEP.IMS_PER_BATCH", 5, processes=2), "error", "phase 1")
    assert finding.keys == ("LST.SOLVER_STEP.IMS_PER_BATCH",)
    assert the(check_loading, plain("TEST.IMS_PER_BATCH", 1, processes=2), "note", "one image at a time")


def test_workers(plain, the, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "processors", lambda: 4)
    checkup = plain("DATALOADER.NUM_WORKERS", 5)
    assert the(check_loading, checkup, "warning", "5 data workers on 4").advice.endswith("NUM_WORKERS 3")
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 1 << 20)
    checkup = plain("DATALOADER.NUM_WORKERS", 4)
    assert "--shm-size 1g" in the(check_loading, checkup, "error", "1 MB are free there").advice


def test_tiny_data(plain, the, edited, data: Path) -> None:
    def few(content: dict) -> None:
        content["images"] = content["images"][:6]
        content["images"][0]["width"] = 65
        content["annotations"] = [
            a for a in content["annotations"] if a["image_id"] <= content["images"][-1]["id"]
        ]

    name = f"('lvis:{edited(few)}@{data}/images/train',)"
    checkup = plain("DATASETS.TRAIN", name, "SOLVER.IMS_PER_BATCH", 8)
    assert the(check_loading, checkup, "warning", "a batch of 8 holds images twice")
    finding = the(check_loading, checkup, "warning", "there are 1 landscape images")
    assert finding.advice == "set DATALOADER.ASPECT_RATIO_GROUPING False"


def test_fixed_sizes(plain, the) -> None:
    """Every batch has the size; grouping saves nothing; ranges count with their upper end."""
    checkup = plain("INPUT.FIXED_SIZE_TRAIN", "(96, 64)", "SOLVER.IMS_PER_BATCH", 2)
    assert batch_shape(checkup, checkup.jobs[0]) == BatchShape(2, 64, 96, True)
    assert the(check_loading, checkup, "note", "saves nothing").keys[1] == "INPUT.FIXED_SIZE_TRAIN"
    assert the(check_memory, checkup, "ok", "96 x 64").keys[1] == "INPUT.FIXED_SIZE_TRAIN"
    checkup = plain("INPUT.MIN_SIZE_RANGE_TRAIN", "(40, 64)", "SOLVER.IMS_PER_BATCH", 2)
    shape = batch_shape(checkup, checkup.jobs[0])
    assert min(shape.height, shape.width) == 64


def test_output_folder(plain, the, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert the(check_storage, plain("OUTPUT_DIR", file), "error", "is a file")
    assert the(check_storage, plain("OUTPUT_DIR", file / "below"), "error", "is a file")
    assert the(check_storage, plain("OUTPUT_DIR", "."), "note", "that it is started from")
    run = tmp_path / "run"
    assert the(check_storage, plain("OUTPUT_DIR", run), "ok", "the run writes about")
    assert not run.exists()
    run.mkdir()
    (run / "last_checkpoint").write_text("model_0000020.pth")
    assert the(check_storage, plain("OUTPUT_DIR", run), "error", "which does not exist")
    (run / "model_0000020.pth").touch()
    assert the(check_storage, plain("OUTPUT_DIR", run), "note", "training resumes from it")


def test_disk_space(plain, lst, the, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(GB, GB, 1000))
    finding = the(check_storage, plain(), "error", "1 kB are free")
    assert "SOLVER.KEEP_CHECKPOINTS" in finding.advice
    needed = storage.checkpoint_bytes(plain().jobs[0])[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(GB, GB, int(4.3 * needed)))
    assert the(check_storage, plain(), "warning", "the run writes about")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(GB, 0, GB))
    assert the(check_storage, lst("SOLVER.KEEP_CHECKPOINTS", 0), "note", "all periodic checkpoints")


def test_bytes_that_a_run_writes(plain, lst) -> None:
    size = model_size(meta_model(plain().cfg))
    one = size.weights + size.trained
    assert storage.checkpoint_bytes(plain().jobs[0]) == (one, 3 * one)
    keep_all = plain("SOLVER.KEEP_CHECKPOINTS", 0, "SOLVER.CHECKPOINT_PERIOD", 4)
    assert storage.checkpoint_bytes(keep_all.jobs[0]) == (one, 11 * one)
    checkup = lst("LST.DISTILL.DTYPE", "float16")
    boxes = sum(c.train_instances for c in checkup.plan.classes[2:4])
    assert storage.distill_bytes(checkup, checkup.jobs[1]) == 2 * boxes * 3 * 2
    assert storage.result_bytes(plain()) == 8 * 20 * storage.MASK_RECORD


def test_sound_configurations_have_no_problem(plain, lst, worst) -> None:
    for checkup in (plain(), lst()):
        for check in (check_loading, check_storage, check_memory):
            assert worst(check, checkup) == []
