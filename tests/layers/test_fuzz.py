"""Every native operation survives bad arguments: it refuses them or computes, and never crashes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.utils.native import load_ops

MANY = int(os.environ.get("MRB_FUZZ_SETS", "10000"))  # `make sanitize` takes fewer
load_ops()
OPERATIONS = [
    "nms",
    "batched_nms",
    "roi_align",
    "roi_align_backward",
    "fpn_levels",
    "fpn_roi_align",
    "fpn_roi_align_backward",
    "roi_pool",
    "roi_pool_backward",
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_sum",
    "sigmoid_focal_loss_backward",
    "paste_masks",
    "rasterize_polygons",
    "deform_conv2d",
    "deform_conv2d_backward",
    "deform_psroi_pooling",
    "deform_psroi_pooling_backward",
    "crop_split",
    "crop_split_backward",
    "quadrant_masks",
    "quadrant_masks_backward",
    "quadrant_mask_loss",
    "quadrant_mask_loss_backward",
    "assemble_masks",
]


def fuzz(root: Path, operation: str, count: int, seed: int) -> int:
    """Run fuzz_ops.py in a separate process; the count of accepted argument sets."""
    command = [
        sys.executable,
        str(root / "tests" / "layers" / "fuzz_ops.py"),
        operation,
        str(count),
        str(seed),
    ]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=1800
    )
    survived = re.search(rf"survived {count}: (\d+) accepted", done.stdout)
    last = re.split(r"[\r\n]", done.stdout)[-1]
    assert done.returncode == 0 and survived, (
        f"{operation}: exit code {done.returncode} in set {last} of seed {seed}\n{done.stderr[-2000:]}"
    )
    return int(survived.group(1))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_few_bad_arguments(project_root: Path, operation: str) -> None:
    accepted = fuzz(project_root, operation, 300, seed=1)
    assert 300 * 0.05 < accepted < 300, "the sets must reach the kernel, and most checks, too"


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_many_bad_arguments(project_root: Path, operation: str) -> None:
    fuzz(project_root, operation, MANY, seed=2)


def test_no_operation_is_forgotten(project_root: Path) -> None:
    known = torch._C._dispatch_get_all_op_names()
    ours = {name.split("::")[1].split(".")[0] for name in known if name.startswith("maskrcnn_benchmark::")}
    assert ours >= set(OPERATIONS)
    # The operations of the evaluation core are tested with bad arguments in tests/evaluation.
    elsewhere = (project_root / "tests" / "evaluation" / "test_bad_arguments.py").read_text()
    rest = ours - {*OPERATIONS, "has_cuda_kernels"}
    assert not {name for name in rest if f'"{name}"' not in elsewhere}
