"""Weight files: there, fitting, of the right classes, for images prepared in this way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.mmdetection_sipmask import export_sipmask
from maskrcnn_benchmark.config.load import dump_config
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.memory import check_memory
from maskrcnn_benchmark.doctor.models import check_model
from maskrcnn_benchmark.doctor.preparation import check_preparation
from maskrcnn_benchmark.doctor.run import run_check
from maskrcnn_benchmark.doctor.storage import check_storage
from maskrcnn_benchmark.doctor.weights import check_weights
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model


def _state(checkup: Checkup, phase: int = 0) -> dict[str, Tensor]:
    return build_detection_model(checkup.jobs[phase].cfg).state_dict()


def _file(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_random_weights(plain, lst, the, worst) -> None:
    assert worst(check_weights, plain()) == []
    finding = the(check_weights, plain("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 2), "error", "random weights")
    assert finding.advice.endswith("set MODEL.BACKBONE.FREEZE_CONV_BODY_AT 0")
    assert (
        "LST.FREEZE_BASE 0" in the(check_weights, lst("LST.FREEZE_BASE", 2), "error", "random weights").advice
    )
    fixed = ("MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithFixedBatchNorm")
    assert the(check_weights, plain(*fixed), "warning", "fixed batch norm")


def test_missing_file_and_unknown_name(plain, the, tmp_path: Path) -> None:
    assert the(check_weights, plain("MODEL.WEIGHT", tmp_path / "no.pth"), "error", "no.pth does not exist")
    checkup = plain("MODEL.WEIGHT", "catalog://ImageNetPretrained/MSRA/R-51")
    assert "did you mean" in the(check_weights, checkup, "error", "unknown weights").text


def test_a_file_that_will_be_downloaded(plain, the, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path))
    checkup = plain("MODEL.WEIGHT", "catalog://ImageNetPretrained/MSRA/R-50")
    finding = the(check_weights, checkup, "note", f"will be downloaded to {tmp_path}/R-50.pkl")
    assert "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl" in finding.advice
    # the tiny configuration divides by 57 and has its stride in the 3x3
    finding = the(check_weights, checkup, "warning", "Caffe2 / Detectron weights")
    assert "INPUT.PIXEL_STD" in finding.keys and "MODEL.RESNETS.STRIDE_IN_1X1 True" in finding.advice


def test_a_file_that_fits_wholly(plain, the, worst, tmp_path: Path) -> None:
    state = _state(plain())
    checkup = plain(weights=str(_file(tmp_path / "own.pth", {f"module.{k}": v for k, v in state.items()})))
    assert worst(check_weights, checkup) == []
    assert the(check_weights, checkup, "ok", f"{len(state)} of {len(state)} tensors of training come from")
    assert not any("random" in f.text for f in run_check(check_weights, checkup))


def test_another_number_of_classes(plain, the, worst, tmp_path: Path) -> None:
    path = _file(tmp_path / "w.pth", _state(plain("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81)))
    checkup = plain("MODEL.WEIGHT", path)
    finding = the(check_weights, checkup, "error", "6 tensors have another shape")
    assert "(81, 32) -> (7, 32)" in finding.text and "WEIGHT_ALLOW_MISMATCH True" in finding.advice
    checkup = plain("MODEL.WEIGHT", path, "MODEL.WEIGHT_ALLOW_MISMATCH", True)
    assert worst(check_weights, checkup) == []
    assert the(check_weights, checkup, "note", "6 tensors behind the backbone start at random")


def test_a_backbone_that_is_missing(plain, the, tmp_path: Path) -> None:
    state = {k: v for k, v in _state(plain()).items() if "body.layer1" not in k}
    path = _file(tmp_path / "w.pth", state)
    assert the(
        check_weights, plain("MODEL.WEIGHT", path), "warning", "tensors of the backbone are not in the file"
    )
    frozen = plain("MODEL.WEIGHT", path, "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 2)
    finding = the(check_weights, frozen, "error", "frozen tensors are not in the file")
    assert "layer1" in finding.text


def test_foreign_and_damaged_files(plain, the, tmp_path: Path) -> None:
    foreign = _file(tmp_path / "foreign.pth", {"a.b": torch.zeros(2)})
    assert the(check_weights, plain("MODEL.WEIGHT", foreign), "error", "no tensor of")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(foreign.read_bytes()[:300])
    assert "cut short" in the(check_weights, plain("MODEL.WEIGHT", broken), "error", "broken.pth").text


def test_classes_that_are_stored_with_the_weights(plain, lst, the, tmp_path: Path) -> None:
    checkup = plain()
    names = ["__background__", *(c["name"] for c in checkup.annotations("train")[0][1].categories)]
    record = {"model": _state(checkup), "classes": names, "config": dump_config(checkup.cfg)}
    path = _file(tmp_path / "run.pth", record | {"iteration": 40, "optimizer": {}})
    checkup = plain("MODEL.WEIGHT", path)
    assert the(check_weights, checkup, "ok", "trained on the same 6 classes")
    assert the(check_weights, checkup, "ok", "prepared as for weights of an earlier run")
    assert the(check_weights, checkup, "note", "of a run at iteration 40")
    _file(path, record | {"classes": [names[0], names[2], names[1], *names[3:]]})
    assert "label 1 is" in the(check_weights, plain("MODEL.WEIGHT", path), "warning", "other classes").text
    other = plain("MODEL.WEIGHT", path, "INPUT.TO_BGR255", False)
    assert the(check_weights, other, "warning", "TO_BGR255 is False").advice == "set INPUT.TO_BGR255 True"


def test_a_file_of_a_later_phase_is_compared_with_that_phase(lst, the, worst, tmp_path: Path) -> None:
    state = _state(lst(), phase=1)
    state = {k: v for k, v in state.items()}
    checkup = lst(weights=str(_file(tmp_path / "w.pth", {"model": state, "classes": lst().plan.names(1)})))
    assert the(check_weights, checkup, "ok", "tensors of phase 1 come from")
    assert the(check_weights, checkup, "ok", "trained on the same 4 classes")


def test_phases_without_their_start(lst, the, tmp_path: Path) -> None:
    checkup = lst("LST.PHASES", "(2,)", "OUTPUT_DIR", tmp_path)
    assert the(check_weights, checkup, "error", "phase 2 starts from").advice.startswith("run phase 1 first")
    (tmp_path / "phase_1").mkdir()
    (tmp_path / "phase_1" / "model_final.pth").touch()
    assert the(check_weights, checkup, "ok", "which is there")


def test_torchvision_weights_want_rgb(plain) -> None:
    state = {name: torch.zeros(1) for name in ("conv1.weight", "bn1.running_var", "layer1.0.bn1.running_var")}
    finding = next(check_preparation(plain().cfg, "resnet50.pth", {"model": state}))
    assert finding.level == "warning"
    assert set(finding.keys) == {"INPUT.TO_BGR255", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"}


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        (
            ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", 56),
            "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR",
        ),
        (("MODEL.BACKBONE.CONV_BODY", "R-51-FPN"), "MODEL.BACKBONE.CONV_BODY"),
        (("MODEL.RESNETS.STAGE_WITH_DCN", "(False,True,True,True)"), "MODEL.RESNETS.STAGE_WITH_DCN"),
    ],
)
def test_models_that_cannot_be_built(plain, worst, pairs: tuple[object, ...], key: str) -> None:
    (finding,) = worst(check_model, plain(*pairs))
    assert finding.level == "error" and key in finding.keys


def test_a_model_that_fails_in_its_own_way(plain, the) -> None:
    checkup = plain("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", -1)
    assert "table above" in the(check_model, checkup, "error", "RuntimeError").advice
    for check in (check_storage, check_memory):
        assert the(check, checkup, "note", "the model cannot be built (see model)")


def test_phases_that_cannot_be_derived(lst, the) -> None:
    checkup = lst("INPUT.MIN_SIZE_TRAIN", "(64, 96)")
    assert "stored for one image size" in the(check_model, checkup, "error", "INPUT.MIN_SIZE_TRAIN").text
    assert the(check_weights, checkup, "note", "cannot be derived (see model)")


ONE_STAGE = (
    *("MODEL.MASK_ON", False, "MODEL.SIPMASK_ON", True, "MODEL.BACKBONE.CONV_BODY", "R-10-FPN-RETINANET"),
    *("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 64, "MODEL.SIPMASK.NUM_CLASSES", 7),
    *("MODEL.SIPMASK.NUM_CONVS", 2, "MODEL.SIPMASK.ALIGN_BIAS", False, "MODEL.SIPMASK.TOWER_BIAS", False),
)


def test_a_file_of_another_one_stage_variant(plain, the, worst, tmp_path: Path) -> None:
    checkup = plain(*ONE_STAGE)
    path = str(_file(tmp_path / "own.pth", {"model": _state(checkup)}))
    assert worst(check_weights, plain(*ONE_STAGE, "MODEL.WEIGHT", path)) == []
    deeper = (*ONE_STAGE, "MODEL.SIPMASK.NUM_CONVS", 3, "MODEL.WEIGHT", path)
    assert "of a backbone" in the(check_weights, plain(*deeper), "error", "file of another model").advice
    allowed = plain(*deeper, "MODEL.WEIGHT_ALLOW_MISMATCH", True)
    assert "error" not in {finding.level for finding in check_weights(allowed)}


def test_a_file_of_mmdetection(plain, the, tmp_path: Path) -> None:
    state = export_sipmask(_state(plain(*ONE_STAGE)))
    path = str(_file(tmp_path / "a.pth", {"meta": {"CLASSES": ("a", "b")}, "state_dict": state}))
    checkup = plain(*ONE_STAGE, "MODEL.WEIGHT", path)
    assert (
        "FROZEN_BN_EPS 1e-05" in the(check_weights, checkup, "warning", "mmdetection SipMask weights").advice
    )
    assert the(check_weights, checkup, "note", "other classes (3 names, the data has 7)")
