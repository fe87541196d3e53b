"""The command lines, run as a user runs them, on a few demo images."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of train_net.py with tests during and after training."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    project_root, config = (request.getfixturevalue(name) for name in ("project_root", "tiny_config"))
    command = [sys.executable, project_root / "tools" / "train_net.py", "--config-file", config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
    overrides = ["OUTPUT_DIR", folder, "SOLVER.TEST_PERIOD", "3"]
    subprocess.run([*command, *overrides], env=environment, check=True, timeout=900)
    return folder


def test_training_leaves_everything_a_user_expects(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "log.txt",
        "config.yml",
        "labels.json",
        "model_final.pth",
        "last_checkpoint",
        "tensorboard",
    }
    assert len(json.loads((trained / "labels.json").read_text())) == 6
    records = read_metrics(trained / METRICS_FILE)
    assert [r["iteration"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert [r["iteration"] for r in records if r["kind"] == "evaluation"] == [3]
    assert "val/segm/AP" in next(r for r in records if r["kind"] == "evaluation")
    log = (trained / "log.txt").read_text()
    assert "training starts from random weights" in log
    assert "iteration: 5/5  eta: 0:00:00  loss:" in log
    results = trained / "inference" / "val"
    assert {p.name for p in results.iterdir()} == {"bbox.json", "segm.json", "metrics.json", "per_class.csv"}
    for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation")):
        found = json.loads((results / f"{iou_type}.json").read_text())
        assert found and all(set(r) == {"image_id", "category_id", "score", key} for r in found)
    assert (trained / "validation" / "0000003" / "val" / "metrics.json").exists()


def test_same_command_again_has_nothing_to_do(trained: Path, tiny_config: Path, tool) -> None:
    before = (trained / "model_final.pth").stat().st_mtime_ns
    done = tool("train_net", "--config-file", tiny_config, "--skip-test", "OUTPUT_DIR", trained)
    assert "nothing to do" in done.stdout
    assert (trained / "model_final.pth").stat().st_mtime_ns == before


def test_testing_gives_the_numbers_of_training(
    trained: Path, tiny_config: Path, tmp_path: Path, tool
) -> None:
    weights = trained / "model_final.pth"
    options = (
        "OUTPUT_DIR",
        tmp_path,
        "--ckpt",
        weights,
        "TEST.EXPECTED_RESULTS",
        "[['bbox','AP',[0.9,0.01]]]",
    )
    done = tool("test_net", "--config-file", tiny_config, *options)
    assert f"testing {weights}" in done.stdout
    assert "NOT as expected" in done.stdout
    again, first = (
        json.loads((folder / "inference" / "val" / "metrics.json").read_text())
        for folder in (tmp_path, trained)
    )
    assert again == first


def test_drawing_what_is_found(
    trained: Path, tiny_config: Path, demo_data: Path, tmp_path: Path, tool
) -> None:
    images = sorted((demo_data / "images" / "val").iterdir())[:2]
    weights = ("--weights", trained / "model_final.pth")
    options = ("--config-file", tiny_config, *weights, "--out", tmp_path, "--threshold", "0", "--scale", "2")
    tool("predict", *options, *images)
    for image in images:
        drawn = Image.open(tmp_path / f"{image.stem}.png")
        assert drawn.size == (128, 128)
        plain = Image.open(image).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)
        assert drawn.convert("RGB").tobytes() != plain.tobytes()


# Runs a tool that gets the signal of Ctrl-C when it has written its first metrics.
INTERRUPTED = """
import os, runpy, signal, sys
from maskrcnn_benchmark.engine import writers

append = writers.append_jsonl

def append_and_interrupt(path, record):
    append(path, record)
    writers.append_jsonl = append
    os.kill(os.getpid(), signal.SIGINT)

writers.append_jsonl = append_and_interrupt
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ctrl_c_and_the_same_command_end_like_an_unbroken_run(
    tiny_config: Path, tmp_path: Path, project_root: Path, tool
) -> None:
    common = (
        "--config-file",
        tiny_config,
        "--skip-test",
        "SOLVER.MAX_ITER",
        "6",
        "SOLVER.CHECKPOINT_PERIOD",
        "1000",
    )
    tool("train_net", *common, "OUTPUT_DIR", tmp_path / "whole")
    broken = tmp_path / "broken"
    script = str(project_root / "tools" / "train_net.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, script, *map(str, common), "OUTPUT_DIR", str(broken)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 130
    assert "run the same command again" in done.stderr
    assert len(read_metrics(broken / METRICS_FILE)) < 6
    assert not (broken / "model_final.pth").exists()
    tool("train_net", *common, "OUTPUT_DIR", broken)
    stored = _weights(broken)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in _weights(tmp_path / "whole").items())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


@pytest.mark.dist
def test_two_processes_of_the_old_launcher_equal_one(
    trained: Path, tiny_config: Path, tmp_path: Path, free_port: int, tool
) -> None:
    """torch.distributed.launch passes --local-rank to every process."""
    launcher = ("torch.distributed.launch", f"--master_port={free_port}")
    options = ("--config-file", tiny_config, "OUTPUT_DIR", tmp_path, "SOLVER.TEST_PERIOD", 3)
    done = tool("train_net", *options, world=2, launcher=launcher)
    assert "2 process(es)" in done.stdout
    # Losses are compared closely below (and weights in tests/engine/test_train_distributed.py): after five
    # steps a unit may have crossed the bend of its ReLU by rounding alone, how many depends on the processor.
    for name, tensor in _weights(trained).items():
        torch.testing.assert_close(_weights(tmp_path)[name], tensor, rtol=1e-5, atol=2e-4, msg=name)
    one, both = (
        [r["loss"] for r in read_metrics(folder / METRICS_FILE) if r["kind"] == "train"]
        for folder in (trained, tmp_path)
    )
    assert len(one) == 5 and both == pytest.approx(one, rel=1e-5)
    metrics = [
        json.loads((folder / "inference" / "val" / "metrics.json").read_text())
        for folder in (trained, tmp_path)
    ]
    assert metrics[1]["num_images"] == 8 and metrics[1]["num_detections"] == metrics[0]["num_detections"]


@pytest.mark.dist
def test_processes_started_one_by_one(
    trained: Path, tiny_config: Path, tmp_path: Path, project_root: Path, free_port: int
) -> None:
    """Older launchers set the environment of the group and pass --local_rank."""
    command = [sys.executable, project_root / "tools" / "test_net.py", "--config-file", tiny_config]
    options = ["--ckpt", trained / "model_final.pth", "OUTPUT_DIR", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    environment["PYTHONPATH"] = os.pathsep.join([str(project_root), os.environ.get("PYTHONPATH", "")])
    environment["MASTER_PORT"] = str(free_port)
    members = [
        subprocess.Popen(
            [*command, f"--local_rank={rank}", *options],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [member.wait(timeout=900) for member in members] == [0, 0]
    first, second = (
        json.loads((folder / "inference" / "val" / "metrics.json").read_text())
        for folder in (trained, tmp_path)
    )
    assert second["tasks"]["segm"]["metrics"] == pytest.approx(first["tasks"]["segm"]["metrics"], abs=1e-6)


def test_bad_input_is_one_clear_line(tiny_config: Path, tmp_path: Path, tool) -> None:
    options = ("OUTPUT_DIR", tmp_path, "SOLVER.BASE_LRR", "1")
    done = tool("train_net", "--config-file", tiny_config, *options, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "SOLVER.BASE_LR" in lines[0]


@pytest.mark.parametrize("name", ["train_net", "test_net"])
def test_options_may_come_before_and_after_overrides(
    project_root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = importlib.util.spec_from_file_location(name, project_root / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    line = "A.B -1 C.D (1,2) --config-file f.yaml --local_rank=1 E.F 0.5"
    monkeypatch.setattr(sys, "argv", [name, *line.split()])
    args = module.parse_arguments()
    assert args.opts == ["A.B", "-1", "C.D", "(1,2)", "E.F", "0.5"]
    assert (args.config_file, args.local_rank) == ("f.yaml", 1)
