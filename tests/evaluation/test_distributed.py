"""Two processes that share the pictures report what one process reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import torch
import torch.distributed as dist
from maskrcnn_benchmark.evaluation.evaluator import DetectionEvaluator
from maskrcnn_benchmark.structures.boxlist import BoxList

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
ids = [11, 4, 9, 2, 30]
image = {"width": 64, "height": 48, "neg_category_ids": [], "not_exhaustive_category_ids": []}
annotations = [
    {"id": n + 1, "image_id": i, "category_id": 1 + n % 2, "bbox": [5, 5, 20, 20], "area": 400,
     "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    for n, i in enumerate(ids)
]
data = {
    "images": [image | {"id": i} for i in ids],
    "annotations": annotations,
    "categories": [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}],
}
judge = DetectionEvaluator(data, "lvis", [0, 1, 2], ("bbox", "segm"))
# the last rank repeats a picture, as padding samplers do
mine = ids[rank::world] + (ids[:1] if rank == world - 1 else [])
for i in mine:
    found = BoxList(torch.tensor([[5.0, 5, 24, 24], [5.0, 5, 22, 26]]), (64, 48))
    found.add_field("scores", torch.tensor([0.5 + i / 100, 0.4]))
    found.add_field("labels", torch.tensor([1 + ids.index(i) % 2, 1]))
    found.add_field("mask", torch.ones(2, 1, 28, 28))
    judge.process([i], [found])
report = judge.evaluate()
with open(f"{folder}/{world}_{rank}.json", "w") as file:
    json.dump([report.metrics, report.detections.to_json()], file)
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.dist
def test_two_processes_report_what_one_does(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"}
    for world in (1, 2):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(rank), str(world), str(tmp_path)], env=environment
            )
            for rank in range(world)
        ]
        assert [process.wait(timeout=120) for process in running] == [0] * world
    alone, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1")
    )
    assert alone[0]["bbox/AP50"] > 0.9
    assert len(alone[1]) == 10
    assert first == alone
    assert second == alone
