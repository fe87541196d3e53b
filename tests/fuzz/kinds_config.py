"""Damaged config files and overrides, loaded as every tool loads them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from mutations import mutate_bytes

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.load import dump_config, load_config

ROOT = Path(__file__).resolve().parents[2]
VALUES = (
    "2001-02-30", "2026-13-01", "2026-11-29", "0x", "0x_", "!!int abc", "!!bool maybe", "!!map [1]",
    "!!set [1]",
    "!!binary x", "!!timestamp x", "!!float x", "!!python/object:os.system x", "!!omap [1]", "!!pairs [1]",
    "9" * 400, "9" * 5000, "1:" * 200 + "1", "1:" * 20000 + "1", ".inf", "-.inf", ".nan", "~", "3", "-1",
    "''",
    '"a\\0b"', '"\\uD800"', '"\\x1b[31m"', "[" * 3000 + "]" * 3000, "{a: " * 3000 + "}" * 3000, "[[[]]]",
    "{}",
    "&a [*a]", "*b", "&c {<<: *c}", "{<<: 3}", "? [a]", "=", "x" * 100_000, "[1, 2", "a: b: c", "'", "@", "`",
    "{[1]: 2}", "{{}: 1}", "(1, 2", "(((((1)))))", "1e400", "1_000", "0o7", "0b1", "yes", "No", "|\n  a\n b",
)  # fmt: skip
BASES = (
    "~", "3", '"a\\0b"', "x.yaml", "[x.yaml, x.yaml]", "/dev/zero", "/dev/null", "pipe", ".", "gone.yaml",
    "[3]",
    "[[x.yaml]]", "{a: 1}", "loop.yaml", "fan0.yaml", "x" * 5000, "link.yaml", "socket",
    "[" + "a.yaml," * 400 + "]",
    "~/x.yaml", "/proc/self/mem", "/etc/passwd",
)  # fmt: skip
LITERALS = (
    "{[]: 1}", "{{}}", "(", "((((", "-" * 5000 + "1", "1+" * 5000 + "1", "9" * 5000, "1e999", "'\\ud800'",
    "\x00", "{1}",
    "b'x'", "1j", "...", "None", "[None]", "lambda: 1", "__import__('os')", "[[]]" * 3000,
    "[" * 300 + "]" * 300,
    "\udcff", "x" * 200_000, "", " ", "('a',)", "{'a': [1, {'b': (2, 3)}]}", "{1: 2}", "1 if 1 else 2",
    "f'{1}'",
)  # fmt: skip


class Config:
    """Yaml files, with the files that they build on, and KEY VALUE pairs."""

    name = "config"

    def prepare(self, folder: Path) -> None:
        """Collect the configs of the project and all keys."""
        self._texts = [
            path.read_text()
            for path in sorted((ROOT / "configs").rglob("*.yaml"))
            if "ablations" not in path.parts
        ]
        self._texts.append(dump_config(get_cfg()))
        self._keys = [key for key, _ in leaves(get_cfg())]
        self._sections = [
            "MODEL",
            "SOLVER",
            "LST.PHASE_OVERRIDES",
            "LST.SOLVER_STEP",
            "DATASETS.REGISTER",
            "MODEL.RPN",
        ]

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change lines, values, bytes, `_BASE_` or the overrides."""
        self._write_bases(folder)
        kind = rng.randrange(6)
        overrides: list[str] = []
        text = self._without_base(rng.choice(self._texts))
        content: bytes | None = None
        if kind == 0:
            text = f"{self._line(rng)}\n"
        elif kind == 1:
            text = self._changed_lines(rng, text)
        elif kind == 2:
            content = mutate_bytes(rng, text.encode())
        elif kind == 3:
            text = f"_BASE_: {rng.choice(BASES)}\n{text}"
        elif kind == 4:
            text = _laughs(rng)
        else:
            for _ in range(rng.choice([1, 1, 2])):
                overrides.append(
                    rng.choice([rng.choice(self._keys), rng.choice(self._sections), _odd_key(rng)])
                )
                overrides.append(rng.choice([*LITERALS, *VALUES]))
            if rng.random() < 0.1:
                overrides.pop()
        path = folder / "x.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape") if content is None else content)
        return lambda: load_config(path, overrides)

    def _line(self, rng: random.Random) -> str:
        """A key of the tree with an odd value."""
        parts = rng.choice([*self._keys, *self._sections, "_BASE_", _odd_key(rng)]).split(".")
        return ": {".join(parts) + ": " + rng.choice(VALUES) + "}" * (len(parts) - 1)

    def _changed_lines(self, rng: random.Random, text: str) -> str:
        lines = text.split("\n")
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randrange(len(lines))
            change = rng.randrange(6)
            if change == 0:
                lines.insert(at, lines[rng.randrange(len(lines))])
            elif change == 1:
                lines[at] = (
                    rng.choice([" ", "  ", "\t", "- ", "? ", "---\n", "%YAML 1.1\n", "...\n"]) + lines[at]
                )
            elif change == 2:
                key, colon, _ = lines[at].partition(":")
                lines[at] = f"{key}{colon or ':'} {rng.choice(VALUES)}"
            elif change == 3:
                del lines[at]
                lines = lines or [""]
            elif change == 4:
                lines[at] = lines[at].strip()
            else:
                lines.insert(at, self._line(rng))
        return "\n".join(lines)

    @staticmethod
    def _without_base(text: str) -> str:
        return "\n".join(line for line in text.split("\n") if not line.startswith(("_BASE_", "  - .", "- .")))

    @staticmethod
    def _write_bases(folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        (folder / "loop.yaml").write_text("_BASE_: x.yaml")
        (folder / "link.yaml").symlink_to("link.yaml")
        for step in range(25):
            (folder / f"fan{step}.yaml").write_text(f"_BASE_: [fan{step + 1}.yaml, fan{step + 1}.yaml]")
        (folder / "fan25.yaml").write_text("SEED: 1")


def _odd_key(rng: random.Random) -> str:
    return rng.choice(
        ["", ".", "MODEL.", "a.b.c", "SEED.X", "x" * 3000, "MODEL..WEIGHT", "\x1b", "LST.PHASE_OVERRIDES.1",
         "DATASETS.REGISTER.a.KIND", "DATASETS.REGISTER.a", "LST.PHASE_OVERRIDES.x", "PATHS_CATALOG"]
    )  # fmt: skip


def _laughs(rng: random.Random) -> str:
    """A value in which each alias stands for several of the one before, below some key."""
    rows, width = rng.choice([3, 10, 40, 300]), rng.choice([1, 2, 9])
    row = ", ".join(f"&n{i + 1} [{', '.join([f'*n{i}'] * width)}]" for i in range(rows))
    maps = ", ".join(f"&n{i + 1} {{<<: [{', '.join([f'*n{i}'] * width)}], k{i}: 1}}" for i in range(rows))
    value = f'[&n0 ["x"], {row}]' if rng.random() < 0.6 else f"[&n0 {{a: 1}}, {maps}]"
    return rng.choice(["MODEL: {WEIGHT: %s}", "_BASE_: %s", "LST: {PHASE_OVERRIDES: {1: %s}}", "%s"]) % value
