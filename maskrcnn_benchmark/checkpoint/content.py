"""The content of a pickle as a tree: bounded depth and size, and the names of what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from maskrcnn_benchmark.checkpoint.pickle_machine import PickleError, short

MAX_DEPTH = 64
MAX_SIZE = 1 << 23  # values, those of shared containers counted wherever they appear


class Unsupported:
    """Stands for something that a file may hold and no weight file needs, until its name is known."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class UnsupportedError(PickleError):
    """Content that a weight file may not have; the text names it."""


class _Frame:
    """A container on the way from the root, and what of it has not been visited."""

    __slots__ = ("container", "items", "key", "size")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.items = _items(container)
        self.key: Any = None
        self.size = 1


def _items(container: Any) -> Iterator[tuple[Any, Any]]:
    return iter(container.items() if isinstance(container, Mapping) else enumerate(container))


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


def _path(frames: list[_Frame]) -> str:
    keys = [frame.key if isinstance(frame.key, str) else short(frame.key) for frame in frames]
    text = ".".join(key[:100] for key in keys[:8]) + ("..." if len(keys) > 8 else "")
    return repr(text)[1:-1]


def walk(value: Any, visit: Callable[[Any, Callable[[], str]], None]) -> None:
    """Call `visit(leaf, path)` for every leaf of nested dicts, lists and tuples, shared ones once.

    `path()` is the leaf's name, keys joined by points.

    Raises:
        PickleError: more than MAX_DEPTH levels, a container within itself, or more than MAX_SIZE values.
    """
    frames: list[_Frame] = []
    sizes: dict[int, int] = {}  # of finished containers
    active: set[int] = set()

    def path() -> str:
        return _path(frames)

    if not _is_container(value):
        visit(value, path)
        return
    frames.append(_Frame(value))
    active.add(id(value))
    while frames:
        frame = frames[-1]
        size = frame.size
        entered = None
        for key, item in frame.items:
            frame.key = key
            if not _is_container(item):
                visit(item, path)
                size += 1
            elif id(item) in sizes:
                size += sizes[id(item)]
            elif id(item) in active:
                raise PickleError(f"{_path(frames)} contains itself")
            else:
                entered = item
                break
        if size > MAX_SIZE:
            raise PickleError(f"it stands for more than {MAX_SIZE} values")
        frame.size = size
        if entered is not None:
            if len(frames) >= MAX_DEPTH:
                raise PickleError(f"{_path(frames)} is nested more than {MAX_DEPTH} levels deep")
            frames.append(_Frame(entered))
            active.add(id(entered))
            continue
        frames.pop()
        active.discard(id(frame.container))
        sizes[id(frame.container)] = size
        if frames:
            frames[-1].size += size


def checked_content(content: Any) -> Any:
    """Return what a pickle holds after checking that it can be walked through and has no `Unsupported`.

    Raises:
        PickleError: see `walk`.
        UnsupportedError: it has something unsupported, which is named by its path.
    """

    def refuse(leaf: Any, path: Callable[[], str]) -> None:
        if isinstance(leaf, Unsupported):
            raise UnsupportedError(f"{path() or 'its content'} is {leaf.what}")

    walk(content, refuse)
    return content
