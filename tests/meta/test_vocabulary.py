"""Names and sentences use the field's standard terms (CONTRIBUTING.md); one public name has one meaning.

`python tests/meta/test_vocabulary.py [FOLDER ...]` lists every violation below the folders.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("maskrcnn_benchmark", "tools", "tests", "benchmarks")
# Word in a comment, docstring, message or part of an identifier -> what the field says.
WORDS = {
    r"pictures?": "image",
    r"bod(?:y|ies)": "backbone",
    r"wanted": "expected, target or requested",
    r"(?<!feature )(?<!featurized image )pyramids?": "FPN or feature pyramid",
    r"judged?": "evaluated",
    r"remed(?:y|ies)": "fix or suggestion",
    r"fates?": "outcome",
    r"culprits?": "offending value",
    r"mirror(?:ed|s|ing)?": "flipped",
    r"region (?:heads?|features?)": "RoI heads, RoI features",
    r"taken over": "reused",
    r"go(?:es)? on": "resumes, continues",
    r"deviations?": "std",
    r"suppress(?:ion|ed|es|ing)?": "NMS",
    r"(?:falling|rising) (?:order|scores?|ids?)": "descending, ascending",
    r"overlaps?": "IoU (or intersection)",
    r"not yet divided|before their division": "unnormalised",
    r"(?:the|its|this|a|core|lst|sipmask) spec(?:ification)?s?|spec(?:ification)? \d+": "paper section",
}
# What stays: published names, other libraries' names, and true intersections.
ALLOWED = re.compile(
    r"backbone\.body|CONV_BODY|conv_body|FREEZE_CONV_BODY|body\.|contextlib|suppress\(|Picture\b|PICTURE\b|real_pictures|--pictures|"
    r"non_?max_?suppression|ZERO_OVERLAP_MATCHES|SUPPRESS\b",
)
_WORD = re.compile(
    r"(?<![A-Za-z])(?:" + "|".join(f"(?:{w})" for w in WORDS) + r")(?![A-Za-z])", re.IGNORECASE
)


def sources(folders: tuple[str, ...] = FOLDERS) -> list[Path]:
    """All Python files of the project below `folders`, this file excepted."""
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py") if p != Path(__file__).resolve())


def violations(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) for every word of the list in comments, strings with spaces and identifiers."""
    text, before = path.read_text(encoding="utf-8"), ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        attribute, before = before == ".", token.string
        if token.type == tokenize.NAME:
            if (
                attribute and token.string == "body"
            ):  # published module name; the body of a syntax tree's node
                continue
            content = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", token.string).replace("_", " ")
            if ALLOWED.search(token.string):
                continue
        elif token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            content = token.string
        else:
            continue
        for offset, line in enumerate(content.splitlines()):
            for match in _WORD.finditer(ALLOWED.sub(" ", line)):
                yield token.start[0] + offset, f"{match[0]!r} in {line.strip()[:90]!r}"


def form_faults(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) for relative imports and double backticks."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s*from \.", line):
            yield number, "relative import"
        if "``" in line:
            yield number, "double backticks"


def repeated_names() -> dict[str, list[str]]:
    """Public functions and classes at the top level of more than one module of the package."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(("maskrcnn_benchmark",)):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    return {name: files for name, files in places.items() if len(files) > 1}


_SHAPE = re.compile(r"\((?:\s*[\w.*+/^' \-]+,)+(?:\s*[\w.*+/^' \-]+)?\s*\)|scalars?|\(\)")


def tensor_functions() -> Iterator[tuple[str, bool]]:
    """Public functions with a Tensor in their signature, and whether the docstring gives a shape."""
    for path in sources(("maskrcnn_benchmark",)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            hints = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
            if not any(h is not None and re.search(r"\bTensor\b", ast.unparse(h)) for h in hints):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield where, bool(_SHAPE.search(ast.get_docstring(node) or ""))


@pytest.mark.parametrize("folder", FOLDERS)
def test_words_of_the_field(folder: str) -> None:
    listed = [f"{p.relative_to(ROOT)}:{n}: {t}" for p in sources((folder,)) for n, t in violations(p)]
    assert not listed, "\n".join(listed[:40])


@pytest.mark.parametrize("folder", FOLDERS)
def test_form(folder: str) -> None:
    listed = [f"{p.relative_to(ROOT)}:{n}: {t}" for p in sources((folder,)) for n, t in form_faults(p)]
    assert not listed, "\n".join(listed[:40])


def test_one_public_name_one_meaning() -> None:
    assert not repeated_names()


def test_docstrings_of_tensor_functions_give_shapes() -> None:
    found = list(tensor_functions())
    without = [where for where, has in found if not has]
    assert len(without) <= 0.1 * len(found), "\n".join(without[:40])


if __name__ == "__main__":
    below = [Path(a).resolve() for a in sys.argv[1:]] or [ROOT / f for f in FOLDERS]
    chosen = [p for p in sources() if any(p == b or p.is_relative_to(b) for b in below)]
    for source in chosen:
        for line, text in sorted([*violations(source), *form_faults(source)]):
            print(f"{source.relative_to(ROOT)}:{line}: {text}")
    names = {str(p.relative_to(ROOT)) for p in chosen}
    for name, files in sorted(repeated_names().items()):
        if names & set(files):
            print(f"public name {name} in {', '.join(files)}")
    for where, has in tensor_functions():
        if not has and where.split(":")[0] in names:
            print(f"no shape in the docstring: {where}")
