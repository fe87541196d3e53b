"""Class lists of models and data sets, compared by id and name.

One rule pairs the classes of two lists (`map_classes`): a class is its (id, name). The same classes in
another order are mapped. Lists with the same names under other ids are mapped by name, with a line in the
log, where no name occurs twice. All else is refused with what differs.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn_benchmark.utils.errors import CheckpointError, DataError

logger = logging.getLogger(__name__)
BACKGROUND = "__background__"
_MAX_ROWS = 10  # differences that a message lists
_MAX_NAME = 40  # characters of a name in a message
Pair = tuple[int | None, str]  # id and name
Row = tuple[int | None, str | None, str | None]


@dataclass(frozen=True)
class ClassList:
    """Classes by label: the first one has label 1.

    Attributes: `names`; `ids`, category ids, None where only names are known (files of other programs);
    `source`, whose classes they are, for messages.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] | None
    source: str

    @classmethod
    def of_categories(cls, categories: Iterable[Mapping[str, Any]], source: str) -> ClassList:
        """The category records of an annotation file, in its order."""
        records = list(categories)
        return cls(tuple(str(c["name"]) for c in records), tuple(c["id"] for c in records), source)

    @classmethod
    def stored(cls, checkpoint: Mapping[str, Any], source: str) -> ClassList | None:
        """The list that a checkpoint carries (`classes`, `label_to_category`); None where there is none.

        Raises CheckpointError when the two disagree.
        """
        names, ids = checkpoint.get("classes"), checkpoint.get("label_to_category")
        named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if not named or not names or names[0] != BACKGROUND:
            return None
        if ids is None:
            return cls(tuple(names[1:]), None, source)
        numbered = isinstance(ids, list | tuple) and all(type(number) is int for number in ids)
        if not numbered or len(ids) != len(names):
            raise CheckpointError(
                f"{source} names {len(names)} classes, but its label_to_category is no list of as many "
                "numbers; get the file again"
            )
        return cls(tuple(names[1:]), tuple(ids[1:]), source)

    def __len__(self) -> int:
        """Number of classes, the background not counted."""
        return len(self.names)

    def record(self) -> dict[str, Any]:
        """The entries of a checkpoint that `stored` reads: names and ids by label, the background first."""
        names = {"classes": [BACKGROUND, *self.names]}
        return names if self.ids is None else names | {"label_to_category": [0, *self.ids]}


def map_classes(
    model: ClassList, data: ClassList, *, subset: bool = False, problem: str = "", advice: str = ""
) -> list[int]:
    """Category ids of `data` by label of `model`, after the rule of this module.

    Args:
        subset: `data` may have further classes, which are left out; ids must agree then. problem, advice: of
            the message for other classes.

    Raises:
        DataError: for other classes, with the differences side by side.
    """
    assert data.ids is not None
    if model.ids is not None:
        of_model, of_data = Counter(_pairs(model)), Counter(_pairs(data))
        if of_model == of_data or (subset and of_model <= of_data):
            return list(model.ids)
    order = None if subset else _order_by_name(model, data)
    if order is None:
        raise DataError(differences(model, data, subset=subset, problem=problem, advice=advice))
    if model.ids is not None:
        logger.info("%s has the classes of %s under other ids: paired by name", data.source, model.source)
    return order


def differences(
    model: ClassList, data: ClassList, *, subset: bool = False, problem: str = "", advice: str = ""
) -> str:
    """What differs between two lists, in one line: up to ten classes side by side."""
    rows = _unlike(model, data, subset=subset)
    shown = [
        f"{other} has no label" if label is None else f"label {label} is {one} | {other or 'missing'}"
        for label, one, other in rows[:_MAX_ROWS]
    ]
    rest = f" and {len(rows) - _MAX_ROWS} more" if len(rows) > _MAX_ROWS else ""
    return (
        f"{problem or 'these are the classes of another model'}: {len(rows)} classes differ between "
        f"{model.source} ({len(model)}) and {data.source} ({len(data)}): "
        f"{', '.join(shown) or 'names occur twice'}{rest}; {advice or 'give both the same ids and names'}"
    )


def _pairs(classes: ClassList) -> list[Pair]:
    """(id, name) of every class."""
    ids: Sequence[int | None] = classes.ids or (None,) * len(classes)
    return list(zip(ids, classes.names, strict=True))


def _order_by_name(model: ClassList, data: ClassList) -> list[int] | None:
    """Category ids of `data` by label of `model` where both have the same names; None where they do not.

    A list without ids is another program's: case, `_` and `-` of its names do not count.
    """
    assert data.ids is not None
    ours, theirs = list(model.names), list(data.names)
    if model.ids is None:
        ours, theirs = ([_plain(name) for name in names] for names in (ours, theirs))
        if ours == theirs:
            return list(data.ids)
    if sorted(ours) != sorted(theirs) or len(set(ours)) != len(ours):
        return None
    by_name = dict(zip(theirs, data.ids, strict=True))
    return [by_name[name] for name in ours]


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()


def _unlike(model: ClassList, data: ClassList, *, subset: bool) -> list[Row]:
    """(label, class of `model`, class of `data`) of all that differ, by label; None where one has none."""
    ours: list[tuple[int, Pair]] = list(enumerate(_pairs(model), start=1))
    theirs = _pairs(data)
    rows: list[Row] = []
    # equal classes first, then those of one id, then those of one name
    equal, *alike = (_name_key,) if model.ids is None else (_same_key, _id_key, _name_key)
    for key in (equal, *alike):
        waiting: dict[Any, list[Pair]] = defaultdict(list)
        for pair in theirs:
            waiting[key(pair)].append(pair)
        rest = []
        for label, pair in ours:
            if not waiting[key(pair)]:
                rest.append((label, pair))
                continue
            other = waiting[key(pair)].pop(0)
            if key is not equal:
                rows.append((label, _text(pair), _text(other)))
        ours, theirs = rest, [pair for pairs in waiting.values() for pair in pairs]
    rows += [(label, _text(pair), None) for label, pair in ours]
    rows.sort(key=lambda row: row[0] or 0)
    return rows if subset else [*rows, *((None, None, _text(pair)) for pair in theirs)]


def _same_key(pair: Pair) -> Any:
    return pair


def _id_key(pair: Pair) -> Any:
    return pair[0]


def _name_key(pair: Pair) -> Any:
    return _plain(pair[1])


def _text(pair: Pair) -> str:
    """A class in a message: its id and its name, shortened."""
    number, name = pair
    shown = repr(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...")
    return shown if number is None else f"{number} {shown}"
