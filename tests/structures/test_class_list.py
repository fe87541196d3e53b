"""Class lists: the rule by which two of them are paired, and what a refusal says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import permutations

import pytest

from maskrcnn_benchmark.structures.class_list import ClassList, map_classes
from maskrcnn_benchmark.utils.errors import CheckpointError, DataError


def listed(names: Sequence[str], ids: Sequence[int] | None = None, source: str = "one.json") -> ClassList:
    return ClassList(tuple(names), None if ids is None else tuple(ids), source)


def test_the_same_classes_in_any_order() -> None:
    model = listed("abcde", range(10, 15))
    for order in permutations(range(5)):
        data = listed(["abcde"[i] for i in order], [10 + i for i in order])
        assert map_classes(model, data) == list(range(10, 15))


def test_two_classes_of_one_name_are_told_apart_by_id() -> None:
    model, data = listed(["bat", "bat", "cup"], (1, 2, 3)), listed(["cup", "bat", "bat"], (3, 2, 1))
    assert map_classes(model, data) == [1, 2, 3]
    with pytest.raises(DataError, match="3 classes differ"):
        map_classes(model, listed(["cup", "bat", "bat"], (30, 20, 10)))


def test_other_ids_are_paired_by_name_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    model, data = listed(["cat", "dog"], (17, 18), "run.pth"), listed(["dog", "cat"], (1, 2), "two.json")
    with caplog.at_level(logging.INFO):
        assert map_classes(model, data) == [2, 1]
    assert caplog.messages == ["two.json has the classes of run.pth under other ids: paired by name"]


def test_names_of_other_programs() -> None:
    data = listed(["fire hydrant", "Cat"], (5, 6))
    assert map_classes(listed(["cat", "fire_hydrant"]), data) == [6, 5]
    assert map_classes(listed(["a", "a"]), listed(["a", "a"], (3, 2))) == [3, 2]
    with pytest.raises(DataError, match="'dog'"):
        map_classes(listed(["dog", "fire_hydrant"]), data)


def test_a_refusal_shows_the_lists_side_by_side() -> None:
    model = listed(["cat", "dog", "cow", "hen"], (1, 2, 3, 4), "run.pth")
    data = listed(["hen", "hound", "cat", "emu"], (4, 2, 1, 9), "two.json")
    with pytest.raises(DataError) as caught:
        map_classes(model, data, problem="cannot be tested", advice="test with others")
    assert str(caught.value) == (
        "cannot be tested: 3 classes differ between run.pth (4) and two.json (4): label 2 is 2 'dog' | "
        "2 'hound', label 3 is 3 'cow' | missing, 9 'emu' has no label; test with others"
    )


def test_a_refusal_stays_short() -> None:
    model = listed(["x" * 10_000 + str(i) for i in range(500)], range(500))
    with pytest.raises(DataError, match=" and 490 more;") as caught:
        map_classes(model, listed([str(i) for i in range(500)], range(500)))
    assert len(str(caught.value)) < 1500 and "\n" not in str(caught.value)


def test_subset() -> None:
    data = listed(["hen", "cat", "dog"], (4, 1, 2))
    assert map_classes(listed(["cat", "hen"], (1, 4)), data, subset=True) == [1, 4]
    with pytest.raises(DataError, match=r"1 classes differ .* label 1 is 7 'cat' \| 1 'cat'"):
        map_classes(listed(["cat", "hen"], (7, 4)), data, subset=True)
    with pytest.raises(DataError, match="2 'dog' has no label"):
        map_classes(listed(["cat", "hen"], (1, 4)), data)


def test_lists_of_checkpoints() -> None:
    names = ["__background__", "cat", "dog"]
    read = ClassList.stored({"classes": names, "label_to_category": [0, 17, 18]}, "run.pth")
    assert read == listed(["cat", "dog"], (17, 18), "run.pth")
    assert read.record() == {"classes": names, "label_to_category": [0, 17, 18]}
    named = ClassList.stored({"classes": names}, "run.pth")
    assert named == listed(["cat", "dog"], None, "run.pth") and named.record() == {"classes": names}
    for absent in ({}, {"classes": 80}, {"classes": []}, {"classes": ["cat"]}, {"classes": [1, 2]}):
        assert ClassList.stored(absent, "run.pth") is None
    for wrong in ([0, 17], [0, 17, "18"], [0, 17, 18.0], 3):
        with pytest.raises(CheckpointError, match=r"run\.pth names 3 classes"):
            ClassList.stored({"classes": names, "label_to_category": wrong}, "run.pth")
