"""Files of the project: links resolve, no absolute paths of a host, no stray data."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".yaml", ".toml", ".cpp", ".cu", ".h", ".cuh", ".txt", ".cfg", ".ipynb", ""}
ABSOLUTE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|home|root|Users)/")


def _tracked() -> list[Path]:
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout.split(b"\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / n.decode() for n in names if n and (ROOT / n.decode()).is_file()]


def test_no_absolute_paths() -> None:
    hits = []
    for path in _tracked():
        if path.suffix not in TEXT or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if ABSOLUTE_PATH.search(line):
                hits.append(f"{path.relative_to(ROOT)}:{number}")
    assert not hits


def test_no_large_files_and_no_foreign_images() -> None:
    for path in _tracked():
        assert path.stat().st_size <= 2_000_000, f"{path.relative_to(ROOT)} is larger than 2 MB"
        assert not re.fullmatch(r"0{4,}\d+\.jpg", path.name), f"{path.name} looks like a COCO image"


@pytest.mark.parametrize("page", sorted(p.name for p in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
def test_links_resolve(page: str) -> None:
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert (path.parent / target).exists(), f"{page}: link to {target} does not exist"


def test_readme_names_real_files() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"(?:configs|tools|docs|jupyter_notebook)/[\w./-]+\.(?:yaml|py|md|ipynb)", text):
        assert (ROOT / name).exists(), f"README.md names {name}, which does not exist"
