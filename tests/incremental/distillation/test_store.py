"""The store of teacher outputs: round trips, look-up, refusals, the published layout."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distillation.json_files import (
    export_logits,
    import_logits,
    new_box_ids,
)
from maskrcnn_benchmark.incremental.distillation.lookup import DistillLookup
from maskrcnn_benchmark.incremental.distillation.store import (
    STORE_FILES,
    DistillHeader,
    DistillStore,
    ImageCosines,
    MemoryBlock,
    write_blocks,
    write_store,
)
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.utils.errors import DataError

HEADER = DistillHeader(1, 3, "c" * 64, "f" * 64, (800, 1333), (0, 1), "float32")


def rows(num_old: int = 3) -> list[ImageCosines]:
    """Images 9 and 4 with two and one boxes, both flips, in scrambled order."""
    made = np.random.default_rng(0)
    ids = {9: np.array([31, 22]), 4: np.array([7])}
    shape = num_old + 1
    return [
        ImageCosines(image, flip, ids[image], made.normal(size=(len(ids[image]), shape)).astype(np.float32))
        for flip in (1, 0)
        for image in (9, 4)
    ]


def batch(
    labels: list[list[int]], annotation_ids: list[list[int]], image_ids: list[int], flips: list[bool]
) -> Batch:
    """Images of 20 x 20 with boxes that carry their annotation id as x2."""
    targets = []
    for label, ids in zip(labels, annotation_ids, strict=True):
        box = BoxList(torch.tensor([[0.0, 0.0, float(i), 9.0] for i in ids]).reshape(-1, 4), (20, 20))
        box.add_field("labels", torch.tensor(label, dtype=torch.int64))
        box.add_field("annotation_ids", torch.tensor(ids, dtype=torch.int64))
        targets.append(box)
    images = to_image_list([torch.zeros(3, 20, 20) for _ in labels])
    return Batch(images, targets, image_ids, list(range(len(labels))), [0] * len(labels), flips)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_round_trip(tmp_path: Path, dtype: str) -> None:
    store = write_store(tmp_path / "s", replace(HEADER, dtype=dtype), rows())
    again = DistillStore(tmp_path / "s")
    assert again.header == store.header and len(again) == 2 and 9 in again and 5 not in again
    assert again.image_ids.tolist() == [4, 9]
    for row in rows():
        found = again.read(row.image_id, row.flip)
        assert found.annotation_ids.tolist() == row.annotation_ids.tolist()
        np.testing.assert_array_equal(found.cosines, row.cosines.astype(dtype))
        assert isinstance(found.cosines.base, np.memmap) or isinstance(found.cosines, np.memmap)


def test_blocks_in_any_order_make_the_same_store(tmp_path: Path) -> None:
    whole = write_store(tmp_path / "whole", HEADER, rows())
    first, *others = (MemoryBlock([row], 3) for row in rows())
    again = rows()[0]
    stale = ImageCosines(again.image_id, again.flip, again.annotation_ids, again.cosines + 1)
    write_blocks(tmp_path / "blocks", HEADER, [MemoryBlock([stale], 3), *others, first, MemoryBlock([], 3)])
    for name in STORE_FILES:
        assert (tmp_path / "blocks" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_writing_and_looking_up_hold_little_memory(tmp_path: Path) -> None:
    columns, boxes, blocks = 1000, 50, 8
    header = replace(HEADER, num_old=columns - 1, flips=(0,))

    class Drawn:
        """A block of rows made when they are asked for."""

        def __init__(self, number: int) -> None:
            self.number = number

        def read(self, name: str) -> np.ndarray:
            first = self.number * 20
            return {
                "images": lambda: np.array([(first + i, 0, boxes) for i in range(20)]),
                "annotation_ids": lambda: np.arange(20 * boxes),
                "cosines": lambda: np.full((20 * boxes, columns), self.number, np.float32),
            }[name]()

    tracemalloc.start()
    store = write_blocks(tmp_path, header, [Drawn(number) for number in range(blocks)])
    rows = [store.read(image, 0) for image in (0, 159, 77)]
    assert [float(r.cosines.mean()) for r in rows] == [0.0, 7.0, 3.0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = (tmp_path / "logits.npy").stat().st_size
    assert whole > 32_000_000 and peak < 0.35 * whole


def test_store_without_boxes(tmp_path: Path) -> None:
    assert len(write_store(tmp_path, HEADER, [])) == 0


def test_lookup_matches_by_annotation_id(tmp_path: Path) -> None:
    lookup = DistillLookup(write_store(tmp_path, HEADER, rows()), 3)
    found = lookup(
        batch(
            [[2, 4, 5], [1, 3], [5]],  # labels above 3 are new
            [[1, 22, 31], [5, 6], [7]],
            [9, 8, 4],
            [True, False, False],
        )
    )
    assert [len(b) for b in found.boxes] == [2, 0, 1]
    assert found.boxes[0][:, 2].tolist() == [22.0, 31.0]
    stored = {(r.image_id, r.flip): r.cosines for r in rows()}
    torch.testing.assert_close(found.teacher_cosine[0], torch.from_numpy(stored[(9, 1)][[1, 0]]))
    torch.testing.assert_close(found.teacher_cosine[2], torch.from_numpy(stored[(4, 0)]))
    assert found.teacher_cosine[1].shape == (0, 4)


def test_missing_entries_are_named(tmp_path: Path) -> None:
    store = write_store(tmp_path, HEADER, rows())
    lookup = DistillLookup(store, 3)
    with pytest.raises(DataError, match="image 8"):
        lookup(batch([[4]], [[22]], [8], [False]))
    with pytest.raises(DataError, match="annotation 23 of image 9"):
        lookup(batch([[4]], [[23]], [9], [False]))
    with pytest.raises(DataError, match="3 old classes, this step has 2"):
        DistillLookup(store, 2)
    one = write_store(tmp_path / "one", replace(HEADER, flips=(0,)), [r for r in rows() if r.flip == 0])
    with pytest.raises(DataError, match="flip 1 was not dumped"):
        one.read(9, 1)


def test_flips_must_agree_and_files_be_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 4 differ between the flips"):
        write_store(tmp_path / "a", HEADER, rows()[:-1])
    with pytest.raises(DataError, match="must have 4 columns"):
        write_store(tmp_path / "b", HEADER, rows(num_old=2))
    write_store(tmp_path / "c", HEADER, rows())
    (tmp_path / "c" / "logits.npy").write_bytes(b"broken")
    with pytest.raises(DataError, match="dump it again"):
        DistillStore(tmp_path / "c")
    with pytest.raises(DataError, match="does not exist"):
        DistillStore(tmp_path / "nowhere")


def test_published_layout_is_lossless(golden: dict[str, Any], golden_lst: Path, tmp_path: Path) -> None:
    content = golden["distill_logits"]
    ids = {int(image): [10 * int(image) + i for i in range(len(v))] for image, v in content[0].items()}
    header = replace(HEADER, num_old=6)
    store = import_logits(golden_lst / "distill_logits.json", tmp_path / "s", header, ids)
    export_logits(store, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == content
    with pytest.raises(DataError, match=r"image 1001 has rows of shape \(3, 7\), expected 2"):
        import_logits(golden_lst / "distill_logits.json", tmp_path / "t", header, {**ids, 1001: [1, 2]})


def test_published_box_order(golden: dict[str, Any], mini_plan: PhasePlan) -> None:
    train = golden["lvis_mini_train"]
    order = new_box_ids(train, mini_plan.seen_ids(1), mini_plan.num_old(1))
    label = {category: i for i, category in enumerate(mini_plan.seen_ids(1), start=1)}
    place = {a["id"]: (label.get(a["category_id"], 0), i) for i, a in enumerate(train["annotations"])}
    expected = golden["replay"]["steps"]["1"]
    assert set(order) == {expected["dataset_image_ids"][i] for i in expected["new_pair_images"]}
    for ids in order.values():
        keys = [place[i] for i in ids]
        assert keys == sorted(keys) and all(label_of_box > 6 for label_of_box, _ in keys)


def test_box_order_leaves_out_what_training_drops() -> None:
    def ann(number: int, category: int, box: list[float], **more: int) -> dict[str, Any]:
        return {"id": number, "image_id": 1, "category_id": category, "bbox": box, **more}

    data = {
        "images": [{"id": 1, "width": 20, "height": 10}, {"id": 2, "width": 20, "height": 10}],
        "annotations": [
            ann(1, 7, [0.0, 0.0, 5.0, 5.0]),
            ann(2, 5, [1.0, 1.0, 5.0, 1.0]),  # degenerate
            ann(3, 5, [19.5, 1.0, 5.0, 5.0]),  # one pixel wide once clipped
            ann(4, 5, [15.0, 1.0, 50.0, 5.0]),
            ann(5, 5, [1.0, 1.0, 5.0, 5.0], iscrowd=1),
            ann(6, 9, [1.0, 1.0, 5.0, 5.0]),  # old
        ],
    }
    assert new_box_ids(data, [9, 5, 7], 1) == {1: [4, 1]}
    assert new_box_ids(data, [9, 5, 7], 3) == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"1": [[0.5, 0.5], [0.5]]},
            r"image 1 is no list of rows of numbers \(\[\[0.5, 0.5\], \[0.5\]\]\)",
        ),
        ({"1": [["a", "b"]]}, "image 1 is no list of rows of numbers"),
        ({"1": {"a": 1}}, "image 1 is no list of rows of numbers"),
        ({"1": [[0.5, float("nan")]]}, "image 1 has values that are not finite"),
        ({"one": [[0.5, 0.5]]}, "'one' is no image id"),
        ({"9" * 5000: [[0.5, 0.5]]}, r"'999\d+\.\.\.9+' is no image id"),
        ({"1": []}, r"image 1 has rows of shape \(0,\), expected 1 new-class boxes x 2 columns"),
    ],
)
def test_released_files_of_another_form(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    path = tmp_path / "logits.json"
    path.write_text(json.dumps([table, table]))
    header = DistillHeader(1, 1, "x", "x", (64, 64), (0, 1), "float32")
    with pytest.raises(DataError, match=message):
        import_logits(path, tmp_path / "store", header, {1: [11]})
