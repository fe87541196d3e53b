"""Read yaml so that nothing of a config file is lost, in bounded time and memory for any file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened, shortened_text

MAX_BYTES = 1 << 20
"""Largest config file, with all that it builds on."""
MAX_VALUES = 50_000
"""Most keys and values in such files, each alias counted as what it stands for."""
MAX_DEPTH = 50
"""Deepest nesting of sections and lists."""

# Python's own parser for files of usual size, libyaml (20 times as fast) for larger ones.
_SMALL = 1 << 16
# Characters of a number, a date or True/False; what is longer takes time that grows with its square.
_MAX_SCALAR = 400
_TEXT = "tag:yaml.org,2002:str"
_DATE = "tag:yaml.org,2002:timestamp"
# What constructors of yaml raise for scalars that their tag does not allow.
_MISFITS = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


class YamlReader:
    """Reads the files of one config, which together keep the limits of this module."""

    def __init__(self) -> None:
        self._bytes = MAX_BYTES
        self._values = MAX_VALUES

    def read(self, path: Path) -> dict[str, Any]:
        """Return keys and values of a file; an empty file gives an empty dict, every key is text.

        Raises:
            ConfigError: the file is missing, unreadable, no ordinary file, too large, no yaml, no mapping, or
                gives a value twice.
        """
        name = f"configuration file {shortened_text(os.fspath(path))}"
        return self.parse(self._text(path, name), name)

    def parse(self, text: str, name: str) -> dict[str, Any]:
        """Return keys and values of text; `name` says in messages where it is from. Raises as `read` does."""
        try:
            tree = self._load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = shortened_text(str(getattr(error, "problem", None) or "it cannot be parsed"))
            raise ConfigError(f"{name} is not valid yaml{where}: {problem}") from None
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{name} must hold keys and values, got a {type(tree).__name__}")
        return tree

    def _load(self, text: str) -> Any:
        loader = (_Loader if len(text) <= _SMALL else _LARGE)(text)
        loader.values_left = self._values
        try:
            return loader.get_single_data()
        except _MISFITS as error:  # of a text that libyaml cannot hand over to Python, for example
            raise _problem(f"{type(error).__name__}: {error}", None) from None
        finally:
            self._values = loader.values_left
            loader.dispose()

    def _text(self, path: Path, name: str) -> str:
        try:
            content = _read_ordinary(path, self._bytes + 1)
            if len(content) > self._bytes:
                raise ConfigError(
                    f"{name} is too large: a configuration, with all files that it builds on, has at most "
                    f"{MAX_BYTES >> 20} MiB"
                )
            self._bytes -= len(content)
            return content.decode("utf-8-sig")
        except FileNotFoundError:
            raise ConfigError(f"{name} does not exist") from None
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{name} cannot be read: it is not UTF-8 text ({error.reason} at byte {error.start})"
            ) from None
        except OSError as error:
            raise ConfigError(f"{name} cannot be read: {error.strerror or error}") from None
        except ValueError as error:  # a null character in the path
            raise ConfigError(f"{name} cannot be read: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return keys and values of a single yaml file; see `YamlReader.read`."""
    return YamlReader().read(path)


def parse_yaml(text: Any, name: str) -> dict[str, Any]:
    """Return keys and values of yaml text from inside another file; see `YamlReader.parse`."""
    if not isinstance(text, str) or len(text) > MAX_BYTES:
        raise ConfigError(f"{name} is no yaml text of at most {MAX_BYTES >> 20} MiB")
    return YamlReader().parse(text, name)


def _read_ordinary(path: Path, limit: int) -> bytes:
    """Return up to `limit` bytes; OSError for folders, and for pipes and devices, which may never end."""
    _check_ordinary(os.stat(path))  # opening a device can have effects already
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        _check_ordinary(os.fstat(handle))
        return file.read(limit)


def _check_ordinary(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError("it is a folder; give a yaml file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a pipe, a device or a socket; give an ordinary file")


class _Composer(yaml.composer.Composer):
    """Counts values as the tree is composed, and refuses what is too much or too deep."""

    values_left = MAX_VALUES

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._deepest = 0
        self._anchored: dict[int, tuple[int, int]] = {}  # size and height of finished nodes, by their id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Called by yaml for every node, also for an alias, which gives the node that it stands for."""
        event = self.peek_event()  # type: ignore[attr-defined]  # of the parser
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._anchored:
                raise _problem(f"the alias {event.anchor} refers to a value that holds it", event.start_mark)
            size, height = self._anchored[id(node)]
            self._count(size, height, event)
            return node
        before, around = self.values_left, self._deepest
        self._deepest = 0
        self._count(1, 0, event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._anchored[id(node)] = before - self.values_left, self._deepest - self._depth
        self._deepest = max(self._deepest, around)
        return node

    def _count(self, values: int, height: int, event: yaml.Event) -> None:
        """Account for `values` at and below the present depth, `height` levels of them below."""
        self.values_left -= values
        self._deepest = max(self._deepest, self._depth + height)
        if self._deepest >= MAX_DEPTH:
            raise _problem(f"values are nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if self.values_left < 0:
            raise _problem(
                f"there are more than {MAX_VALUES} values (an alias counts as what it stands for)",
                event.start_mark,
            )


class _Constructor(yaml.constructor.SafeConstructor):
    """Joins a section that is written twice, as in some published files; plain yaml drops the first one."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Turn errors of Python about a value into errors of yaml with its position."""
        if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and len(node.value) > _MAX_SCALAR:
            raise _problem(f"a value of {len(node.value)} characters is no text: quote it", node.start_mark)
        if node.tag == _DATE:
            problem = f"{shortened(node.value)} is a date, which no key takes; put it in quotes"
            raise _problem(problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except _MISFITS:
            value = shortened(node.value) if isinstance(node, yaml.ScalarNode) else "this value"
            kind = shortened_text(node.tag.rpartition(":")[2])
            raise _problem(f"{value} is not of type {kind}", node.start_mark) from None


def _mapping(loader: _Constructor, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _problem(f"expected keys and values, got a {_what(node)}", node.start_mark)
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        value = loader.construct_object(value_node, deep=True)
        if key in result and not (isinstance(value, dict) and isinstance(result[key], dict)):
            raise _problem(f"the key {shortened_text(key)} is given twice", key_node.start_mark)
        result[key] = _join(result[key], value) if key in result else value
    return result


def _what(node: yaml.Node) -> str:
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Join two dicts; of a value in both the second counts."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _join(result[key], value) if both else value
    return result


def _problem(problem: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=mark)


_Constructor.add_constructor(  # type: ignore[type-var]
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping
)


class _Loader(
    yaml.reader.Reader,
    yaml.scanner.Scanner,
    yaml.parser.Parser,
    _Composer,
    _Constructor,
    yaml.resolver.Resolver,
):
    """Parser of Python, with the composer and the constructor of this module."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        _Composer.__init__(self)
        _Constructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)


_LARGE: Any = _Loader
if yaml.__with_libyaml__:
    _CParser: Any = vars(yaml.cyaml)["CParser"]

    class _LargeLoader(_Composer, _CParser, _Constructor, yaml.resolver.Resolver):
        """Parser of libyaml with the same composer and constructor."""

        def __init__(self, text: str) -> None:
            _CParser.__init__(self, text)
            _Composer.__init__(self)
            _Constructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    _LARGE = _LargeLoader
