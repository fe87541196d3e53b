"""Online teacher: equal to stored outputs, and in views that cannot be stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distillation.lookup import OnlineTeacher
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import read_json


def test_weights_equal_those_with_stored_outputs_to_the_bit(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    stored = clone_with(tiny_cfg, ["LST.PHASES", (0, 1), "INPUT.BRIGHTNESS", 0.0])
    run_lst(stored)
    folder = str(tmp_path / "online")
    online = clone_with(stored, ["LST.DISTILL.MODE", "online", "OUTPUT_DIR", folder])
    run_lst(clone_with(online, ["LST.BASE_RUN", stored.OUTPUT_DIR]))
    first, second = (
        read_checkpoint(Path(cfg.OUTPUT_DIR) / "phase_1" / "model_final.pth")["model"]
        for cfg in (stored, online)
    )
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    assert "phase_1/dump" not in read_json(Path(folder) / "state.json")["stages"]
    assert not (Path(folder) / "phase_1" / "distill").exists()


def test_sizes_and_views_that_cannot_be_stored(tiny_cfg: CfgNode) -> None:
    views = ["INPUT.MIN_SIZE_TRAIN", (48, 64), "INPUT.VERTICAL_FLIP_PROB_TRAIN", 0.5, "LST.PHASES", (0, 1)]
    with pytest.raises(ConfigError, match="LST.DISTILL.MODE"):
        run_lst(clone_with(tiny_cfg, views))
    run_lst(clone_with(tiny_cfg, [*views, "LST.DISTILL.MODE", "online"]))
    lines = (Path(tiny_cfg.OUTPUT_DIR) / "phase_1" / "metrics.jsonl").read_text()
    assert '"loss_distill"' in lines


def test_the_step_depends_on_the_teacher(tiny_cfg: CfgNode) -> None:
    cfg = clone_with(tiny_cfg, ["LST.DISTILL.MODE", "online", "LST.PHASES", (0, 1)])
    run_lst(cfg)
    record = read_json(Path(cfg.OUTPUT_DIR) / "state.json")["stages"]["phase_1/train"]
    assert "teacher" in record["inputs"]


def test_a_stored_file_and_a_teacher_exclude_each_other(tiny_cfg: CfgNode) -> None:
    both = ["LST.DISTILL.MODE", "online", "LST.DISTILL.FILE", "logits.json"]
    with pytest.raises(ConfigError, match="LST.DISTILL.FILE names stored outputs"):
        clone_with(tiny_cfg, both)


def test_only_new_boxes_get_cosines_and_the_teacher_is_not_changed(tiny_cfg: CfgNode) -> None:
    cfg = clone_with(tiny_cfg, ["MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4])
    model = build_detection_model(cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    teacher = OnlineTeacher(model.train(), 3, 32)
    targets = []
    for labels in ([4, 2, 5], [1], []):
        box = BoxList(torch.tensor([[4.0, 4.0, 30.0, 40.0]] * len(labels)).reshape(-1, 4), (64, 48))
        box.add_field("labels", torch.tensor(labels, dtype=torch.int64))
        box.add_field("annotation_ids", torch.arange(len(labels)))
        targets.append(box)
    tensors = [torch.rand(3, 48, 64), torch.rand(3, 40, 64), torch.rand(3, 48, 96)]
    images = to_image_list(tensors, 32)
    outputs = teacher(Batch(images, targets, [7, 8, 9], [0, 1, 2], [0] * 3, [False] * 3))
    assert [tuple(rows.shape) for rows in outputs.teacher_cosine] == [(2, 4), (0, 4), (0, 4)]
    assert [len(boxes) for boxes in outputs.boxes] == [2, 0, 0]
    assert not outputs.teacher_cosine[0].requires_grad and not model.training
    alone = model.box_cosine(to_image_list(tensors[:1], 32), [outputs.boxes[0]])[0]
    torch.testing.assert_close(outputs.teacher_cosine[0], alone)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
