"""Every command of README.md and docs/ runs (marker `docs`: make test-docs, continuous integration).

Commands run as they are written, with overrides behind them that make images and schedules small.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Run = Callable[..., int | None]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs = _load("test_docs")
# Commands that other tests run: what they start with -> the test file.
ELSEWHERE = {
    "python tools/lst_ablation.py": "tests/tools/test_lst_ablation.py",
    "torchrun --nnodes": "tests/tools/test_tools.py",
    "torchrun --nproc_per_node": "tests/tools/test_tools.py",
    "torchrun --standalone": "tests/tools/test_tools.py",
    "python docs/make_model_zoo.py": "tests/meta/test_docs.py",
}
IMAGES = (
    "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 64 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 64 "
    "DATALOADER.NUM_WORKERS 0 SOLVER.IMS_PER_BATCH 2 TEST.IMS_PER_BATCH 2 MODEL.DEVICE cpu"
)
SHORT = f"{IMAGES} SOLVER.MAX_ITER 1 SOLVER.STEPS (1,) SOLVER.TEST_PERIOD 0 SOLVER.CHECKPOINT_PERIOD 1"
PHASES = (
    f"{IMAGES} LST.SOLVER_BASE.MAX_ITER 1 LST.SOLVER_BASE.IMS_PER_BATCH 2 LST.SOLVER_STEP.MAX_ITER 1 "
    "LST.SOLVER_STEP.IMS_PER_BATCH 2"
)
DEMO = "LST.SOLVER_BASE.MAX_ITER 2 LST.SOLVER_STEP.MAX_ITER 2 DATALOADER.NUM_WORKERS 0 MODEL.DEVICE cpu"
# Random weights: a real learning rate would end in infinities.
LVIS = f"{PHASES} LST.STEP_SIZE (960,) LST.SOLVER_BASE.BASE_LR 1e-9 LST.SOLVER_STEP.BASE_LR 1e-9"
# Beginning of a command -> what follows it here; the longest that fits counts.
BEHIND = {
    "python tools/check_golden.py": "--fast --only splits",
    "python tools/doctor.py": "MODEL.DEVICE cpu DATALOADER.NUM_WORKERS 0",
    "python tools/doctor.py --config-file configs/sipmask": (
        "MODEL.DEVICE cpu MODEL.WEIGHT SipMask_R50_1x.pth MODEL.WEIGHT_ALLOW_MISMATCH True"
    ),
    "python tools/train_net.py": f"{SHORT} MODEL.WEIGHT ''",
    "python tools/train_net.py --config-file configs/lst": LVIS,
    "python tools/train_net.py --config-file configs/lst/demo.yaml": DEMO,
    "python tools/train_net.py --config-file configs/lst/coco_sample.yaml": (
        f"{PHASES} LST.BASE_SIZE 6 LST.STEP_SIZE (4,)"
    ),
    "python tools/train_net.py --config-file configs/lst/released": SHORT,
    "python tools/train_net.py --config-file configs/lst/released/step": f"{SHORT} SOLVER.IMS_PER_BATCH 8",
    "python tools/test_net.py": IMAGES,
    "python tools/test_net.py --config-file configs/lst/demo.yaml": DEMO,
    "python tools/predict.py": "--threshold 0 --limit 2",
    "python tools/dump_distillation.py": IMAGES,
    "python tools/replay_indices.py": "",
}


def _behind(command: str) -> list[str]:
    fitting = [start for start in BEHIND if command.startswith(start)]
    return shlex.split(BEHIND[max(fitting, key=len)]) if fitting else []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, project_root: Path, run_tool: Run) -> Path:
    """The working directory, with finished runs that some commands read."""
    root = tmp_path_factory.mktemp("docs")
    _load("docs_world").make_world(root, project_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for options in ([], ["OUTPUT_DIR", "runs/demo_forgetting", "LST.REPLAY.ENABLED", "False"]):
            demo = ["--config-file", "configs/lst/demo.yaml", *shlex.split(DEMO), *options]
            run_tool("train_net", *demo)
        shutil.copytree("runs/demo/phase_0", "runs/coco_sample_100")
        run_tool(
            "import_weights", "runs/sipmask/model_final.pth", "--to", "mmdetection", "--out", "theirs.pth"
        )
        torchvision = ("--to", "torchvision", "--out", "maskrcnn_resnet50_fpn.pth")
        run_tool("import_weights", "torchvision_like.pth", *torchvision)
        annotations = ("--train", "lvis_v0.5_train.json", "--val", "lvis_v0.5_val.json")
        run_tool("lvis_split", *annotations, "--out", "datasets/lvis/annotations", "--phase-folders")
        run_tool(
            "trim_checkpoint",
            "e2e_mask_rcnn_R_50_FPN_1x.pth",
            "weights/e2e_mask_rcnn_R_50_FPN_1x_trimmed.pth",
        )
        shutil.copy("weights/e2e_mask_rcnn_R_50_FPN_1x_trimmed.pth", "trimmed_coco_model.pth")
        run_tool("train_net", "--config-file", "configs/lst/released/base.yaml", *shlex.split(SHORT))
    return root


def _runs_here(command: str) -> bool:
    return bool(docs.arguments(command)[1]) and not any(command.startswith(start) for start in ELSEWHERE)


@pytest.mark.docs
@pytest.mark.parametrize("command", [c for c in docs.TOOL_COMMANDS if _runs_here(c)])
def test_command_runs(command: str, world: Path, run_tool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    path, given = docs.arguments(command)
    behind = _behind(command)
    if "train_net" in path and not any("configs/lst/" in part for part in given):
        behind += ["OUTPUT_DIR", f"runs/{len(list(Path('runs').iterdir()))}"]
    assert run_tool(Path(path).stem, *given, *behind) in (0, None)


@pytest.mark.parametrize("start", ELSEWHERE)
def test_commands_of_other_tests_are_run_there(start: str, project_root: Path) -> None:
    text = (project_root / ELSEWHERE[start]).read_text(encoding="utf-8")
    tool = docs.START.match(next(c for c in docs.TOOL_COMMANDS if c.startswith(start)))[2]
    assert tool in text


@pytest.mark.docs
def test_python_of_the_readme_runs(world: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    code = (
        (project_root / "README.md")
        .read_text(encoding="utf-8")
        .split("`" * 3 + "python\n")[1]
        .split("`" * 3)[0]
    )
    image = next(Path("datasets/demo/images/val").iterdir())
    names: dict[str, object] = {}
    exec(re.sub(r"datasets/demo/images/val/\d+\.jpg", str(image), code), names)
    assert "detections" in names
