"""Arrays of several ranks gathered through shard files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.shards import Merged, ShardExchange


def _exchange(folder: Path) -> Merged | None:
    """Rank r writes r + 1 parts; part p of it has r + p rows; the second column is missing where r is 1."""
    rank = comm.get_rank()
    exchange = ShardExchange(folder)
    for part in range(rank + 1):
        rows = np.full((rank + part, 2), 10 * rank + part, np.float32)
        exchange.write({"rows": rows} | ({"names": np.arange(3) + 100 * rank} if rank != 1 else {}))
    return exchange.merge()


@pytest.mark.dist
@pytest.mark.parametrize("world", [1, 3])
def test_parts_come_in_the_order_of_ranks(tmp_path: Path, run_ranks: Callable[..., list], world: int) -> None:
    (tmp_path / "run" / ".shards.tmp-0123").mkdir(parents=True)
    (tmp_path / "run" / ".shards.tmp-0123" / "00000_00000.npz").write_bytes(b"left by a killed run")
    first, *others = run_ranks(_exchange, world, tmp_path / "run")
    assert others == [None] * (world - 1)
    expected = [(10 * r + p, r) for r in range(world) for p in range(r + 1) for _ in range(r + p)]
    rows = first.columns["rows"]
    assert rows.dtype == np.float32 and rows.shape == (len(expected), 2)
    assert rows[:, 1].tolist() == [value for value, _ in expected]
    assert first.rank_of_rows("rows").tolist() == [rank for _, rank in expected]
    assert first.columns["names"].tolist() == [
        100 * r + i for r in range(world) if r != 1 for _ in range(r + 1) for i in range(3)
    ]
    assert list((tmp_path / "run").iterdir()) == []


def _damaged(folder: Path) -> str:
    """Error of a rank when a part of rank 1 is truncated."""
    exchange = ShardExchange(folder)
    exchange.write({"rows": np.zeros(100)})
    if comm.get_rank() == 1:
        (path,) = Path(exchange._folder).glob("00001_*")
        path.write_bytes(path.read_bytes()[:200])
    try:
        exchange.merge()
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.dist
def test_an_unreadable_part_is_reported_on_all_ranks(
    tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    messages = run_ranks(_damaged, 2, tmp_path / "run")
    assert all("results of another rank cannot be read" in text for text in messages)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        ShardExchange(tmp_path / "file" / "run")
