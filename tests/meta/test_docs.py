"""Commands, keys and imports in README.md and docs/ exist; with the marker `docs` the commands also run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskrcnn_benchmark.config.compat import MOVED
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "datasets/README.md"]
PAGES += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))
# Commands with placeholders of a synopsis are not run.
PLACEHOLDER = re.compile(r"\b(?:FILE|FOLDER|DIR|IN|OUT|F|N|INPUT)\b|\.\.\.|\[")
_LAUNCHER = r"(?:python |torchrun (?:--[\w-]+ (?!tools)\S+ |--standalone )*)"
START = re.compile(rf"^{_LAUNCHER}(tools|docs)/(\w+)\.py")


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) for every line of a code block, and every code span, that starts a program."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^`{3}[^\n]*\n(.*?)^`{3}", text, re.S | re.M)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        prose = re.sub(r"^`{3}.*?^`{3}", "", text, flags=re.S | re.M)
        lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
        for line in lines:
            command = " ".join(line.split("  #")[0].split())
            if re.match(r"(?:OMP_\w+=\d+ )?(?:python|torchrun|make) ", command):
                yield page, command


ALL = list(dict.fromkeys(commands()))
# In the order of the pages: a command may read what one before it wrote.
TOOL_COMMANDS = list(dict.fromkeys(c for _, c in ALL if START.match(c) and not PLACEHOLDER.search(c)))


def arguments(command: str) -> tuple[str, list[str]]:
    """Folder/name of the script and its arguments."""
    found = START.match(command)
    assert found is not None, command
    return f"{found[1]}/{found[2]}.py", shlex.split(command[found.end() :])


def _module(path: str) -> object:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [c for c in TOOL_COMMANDS if arguments(c)[1]])
def test_tool_knows_the_arguments(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, given = arguments(command)
    monkeypatch.setattr(sys, "argv", [path, *given])
    parsed = _module(path).parse_arguments()  # type: ignore[attr-defined]
    config = getattr(parsed, "config_file", None)
    if config and config.startswith("configs/"):
        assert (ROOT / config).is_file()
    opts = getattr(parsed, "opts", [])
    assert len(opts) % 2 == 0 and all(re.fullmatch(r"[A-Z][\w.]+", key) for key in opts[::2])


@pytest.mark.parametrize("command", sorted({c for _, c in ALL if c.startswith("make ")}))
def test_make_knows_the_target(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.M), command


@pytest.mark.parametrize("command", sorted({c for _, c in ALL if "benchmarks/run.py" in c}))
def test_benchmarks_know_the_suite(command: str) -> None:
    suite = command.split()[2]
    assert f'"{suite}"' in (ROOT / "benchmarks" / "run.py").read_text(), command


def test_import_table_names_what_exists() -> None:
    page = (ROOT / "docs" / "coming_from_the_originals.md").read_text()
    section = page.split("## Imports")[1].split("##")[0]
    targets = [row.split("|")[2] for row in section.splitlines() if row.startswith("| `")]
    names = [name for cell in targets for name in re.findall(r"`(maskrcnn_benchmark[\w.]+)`", cell)]
    assert len(names) >= 25
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            holder = importlib.import_module(module)
        except ModuleNotFoundError:
            raise AssertionError(name) from None
        is_module = hasattr(holder, "__path__") and importlib.util.find_spec(name) is not None
        assert hasattr(holder, attribute) or is_module, name


def test_keys_of_the_docs_exist() -> None:
    """Keys in code spans of the docs are keys of the config tree."""
    known = {key for key, _ in leaves(get_cfg())} | {".".join(old) for old in MOVED}
    sections = {key.rpartition(".")[0] for key in known}
    roots = "MODEL|SOLVER|INPUT|DATALOADER|DATASETS|TEST|LST"
    missing = []
    for page in PAGES:
        for key in re.findall(rf"`((?:{roots})(?:\.\w+)+)(?: [^`]*)?`", (ROOT / page).read_text()):
            if key not in known and key not in sections and not key.endswith("_"):
                missing.append(f"{page}: {key}")
    assert not missing


def test_model_zoo_is_what_the_configs_say() -> None:
    zoo = _module("docs/make_model_zoo.py")

    def without_counts(text: str) -> str:
        return re.sub(r"^(\| \[[^|]*\|[^|]*\|)[^|]*\|", r"\1|", text, flags=re.M).replace(" ", "")

    stored = (ROOT / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    made = zoo.page(parameters=False)  # type: ignore[attr-defined]
    assert without_counts(stored) == without_counts(made), "run python docs/make_model_zoo.py"


def test_readme_is_a_front_door() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
