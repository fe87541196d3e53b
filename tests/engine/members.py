"""Run by torchrun in the distributed tests: ``members.py CASE FOLDER``; rank r writes ``rank<r>.pt``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from conftest import fake_stream, make_cfg, make_model

from maskrcnn_benchmark.engine.launch import distributed
from maskrcnn_benchmark.engine.train import train
from maskrcnn_benchmark.utils import comm


def main() -> None:
    """Train the fake model as one of several processes and store what happened."""
    case, folder = sys.argv[1], Path(sys.argv[2])
    with distributed("cpu"):
        rank, world = comm.get_rank(), comm.get_world_size()
        model = make_model()
        if rank:
            # Different weights on the other ranks: those of rank 0 must win.
            torch.nn.init.ones_(model.first.weight)
        if case == "unused":
            model.extra = torch.nn.Linear(1, 1)

        def batches(start: int):
            for number, batch in enumerate(
                fake_stream(start, rank, world, bad=9 if case == "nan" else -1), start
            ):
                if case == "interrupt" and rank == 1 and number == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        error, summary = "", None
        try:
            summary = train(
                make_cfg(),
                model,
                batches,
                output_dir=str(folder / "run"),
                max_iter=8,
                evaluate=None,
                classes=["__background__", "thing"],
            )
        except (Exception, KeyboardInterrupt) as caught:
            error = f"{type(caught).__name__}: {caught}"
        result = {"model": model.state_dict(), "error": error, "losses": summary.losses if summary else {}}
        torch.save(result, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main()
