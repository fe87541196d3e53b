"""Config files and overrides that are wrong on purpose: one line, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskrcnn_benchmark.config.load import MAX_FILES, config_layers, load_config
from maskrcnn_benchmark.config.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read_yaml
from maskrcnn_benchmark.utils.errors import ConfigError

CPU_SECONDS = 2.0  # of this thread; what is unbounded takes minutes


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """2 GiB more than the process has: an unbounded reader fails here, not the computer."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message that loading ends with, without the folder."""
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.thread_time()
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    assert time.thread_time() - began < CPU_SECONDS
    message = str(error.value)
    assert "\n" not in message and len(message) < 1000
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "OUTPUT_DIR: 2001-02-30",
            "line 1, column 13: '2001-02-30' is a date, which no key takes; put it in quotes",
        ),
        ("OUTPUT_DIR: 2026-11-29", "put it in quotes"),
        ("SOLVER: {MAX_ITER: 0x}", "SOLVER.MAX_ITER must be a whole number, got '0x'"),
        ("SOLVER: {MAX_ITER: 0x_}", "line 1, column 20: '0x_' is not of type int"),
        ("SOLVER: {MAX_ITER: !!int abc}", "'abc' is not of type int"),
        ("SOLVER: {BASE_LR: !!float abc}", "'abc' is not of type float"),
        ("MODEL: {MASK_ON: !!bool maybe}", "'maybe' is not of type bool"),
        ("MODEL: !!map [1]", "line 1, column 8: expected keys and values, got a list"),
        ("MODEL: !!set [1]", "in line 1"),
        ("OUTPUT_DIR: !!timestamp x", "'x' is a date"),
        (
            f"SOLVER: {{BASE_LR: {'9' * 400}}}",
            "SOLVER.BASE_LR must be a number, got a whole number of about 400 digits",
        ),
        (f"SOLVER: {{STEPS: [{'9' * 30}]}}", "SOLVER.STEPS must be a whole number of 64 bits, got 9999999"),
        (f"SOLVER: {{MAX_ITER: {'9' * 5000}}}", "a value of 5000 characters is no text: quote it"),
        (f"SOLVER: {{MAX_ITER: {'1:' * 40000}1}}", "is no text: quote it"),
        ("{a: " * 3000 + "}" * 3000, f"values are nested deeper than {MAX_DEPTH} levels"),
        ("[" * 60000 + "]" * 60000, f"values are nested deeper than {MAX_DEPTH} levels"),
        (f"a: {'[' * 90000}", f"values are nested deeper than {MAX_DEPTH} levels"),
        ("a: &a [*a]", "the alias a refers to a value that holds it"),
        ("a: &a {<<: *a}", "the alias a refers to a value that holds it"),
        ("_BASE_: ~", "x.yaml: _BASE_ must be a path or a list of paths, got None"),
        ("_BASE_: 3", "got 3"),
        ("_BASE_: {a: 1}", "got {'a': 1}"),
        ('_BASE_: "a\\0b"', "cannot be read: embedded null byte"),
        (f"_BASE_: {'x' * 5000}", "cannot be read: File name too long"),
        ("_BASE_: pipe", "pipe cannot be read: it is a pipe, a device or a socket"),
        ("_BASE_: /dev/zero", "/dev/zero cannot be read: it is a pipe, a device or a socket"),
        ("_BASE_: /dev/null", "/dev/null cannot be read: it is a pipe"),
        ("_BASE_: .", "cannot be read: it is a folder"),
        (b"\xff\xfea\x00", "is not UTF-8 text"),
        (f"{'k' * 900}: 1", "unknown key kkkk"),
        (f"MODEL: {{WEIGHT: [{'a, ' * 9000}]}}", "MODEL.WEIGHT must be text, got ['a', 'a'"),
        ("LST: {PHASE_OVERRIDES: {1: !!set {a}}}", "LST.PHASE_OVERRIDES.1 must hold numbers, text"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str | bytes, expected: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "place", ["MODEL: {WEIGHT: %s}", "_BASE_: %s", "LST: {PHASE_OVERRIDES: {1: %s}}", "%s"]
)
@pytest.mark.parametrize("rows", [10, 2000])
def test_aliases_that_multiply(tmp_path: Path, place: str, rows: int) -> None:
    values = ", ".join(f"&n{i + 1} [{', '.join([f'*n{i}'] * 9)}]" for i in range(rows))
    message = refusal(tmp_path, place % f'[&n0 ["x", "x"], {values}]')
    assert f"more than {MAX_VALUES} values" in message


def test_merge_keys_that_multiply(tmp_path: Path) -> None:
    values = ", ".join(f"n{i + 1}: &n{i + 1} {{<<: [{', '.join([f'*n{i}'] * 9)}]}}" for i in range(20))
    assert f"more than {MAX_VALUES} values" in refusal(tmp_path, f"{{n0: &n0 {{a: 1}}, {values}}}")


def test_depth_through_aliases(tmp_path: Path) -> None:
    values = ", ".join(f"&n{i + 1} [*n{i}]" for i in range(100))
    assert "nested deeper" in refusal(tmp_path, f"a: [&n0 [1], {values}]")


def test_aliases_are_fine_in_reason(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "SOLVER: &s {STEPS: &t [3, 4]}\nLST: {SOLVER_STEP: *s, SOLVER_BASE: {<<: *s, MAX_ITER: 9}}\n"
    )
    cfg = load_config(tmp_path / "x.yaml")
    assert cfg.SOLVER.STEPS == cfg.LST.SOLVER_STEP.STEPS == cfg.LST.SOLVER_BASE.STEPS == (3, 4)
    assert cfg.LST.SOLVER_BASE.MAX_ITER == 9


def test_many_values_and_large_files(tmp_path: Path) -> None:
    assert f"more than {MAX_VALUES} values" in refusal(tmp_path, f"a: [{'1,' * 400_000}]")
    assert "at most 1 MiB" in refusal(tmp_path, "#" * (MAX_BYTES + 1))
    (tmp_path / "half.yaml").write_text("#" * (MAX_BYTES // 2 + 1))
    assert "at most 1 MiB" in refusal(tmp_path, "_BASE_: half.yaml\n" + "#" * (MAX_BYTES // 2))


def test_a_large_file_reads_as_a_small_one(tmp_path: Path) -> None:
    text = "\ufeffSOLVER: {BASE_LR: 1e-3, STEPS: '(3, 4)'}  # é\nOUTPUT_DIR: 'a # b'\nSEED: 0x1F\n"
    (tmp_path / "small.yaml").write_text(text)
    (tmp_path / "large.yaml").write_text(text + "# more\n" * 20_000)
    assert read_yaml(tmp_path / "small.yaml") == read_yaml(tmp_path / "large.yaml")
    assert load_config(tmp_path / "large.yaml").SEED == 31
    twice = "SEED: 1\nSEED: 2\n"
    for name in ("small", "large"):
        text = twice + "# more\n" * (20_000 if name == "large" else 0)
        assert "line 2, column 1: the key SEED is given twice" in refusal(tmp_path, text)


def test_files_that_name_the_next_twice(tmp_path: Path) -> None:
    """A file that several build on is read once, and counts where it is named last."""
    for step in range(25):
        (tmp_path / f"f{step}.yaml").write_text(f"_BASE_: [f{step + 1}.yaml, f{step + 1}.yaml]\nSEED: {step}")
    (tmp_path / "f25.yaml").write_text("SOLVER: {MAX_ITER: 7}")
    cfg = load_config(tmp_path / "f0.yaml")
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER) == (0, 7)
    assert len(config_layers(tmp_path / "f0.yaml")) == 26


def test_two_files_on_one_base(tmp_path: Path) -> None:
    """Merged in the order base, left, base, right: what the base sets wins over the left one."""
    (tmp_path / "base.yaml").write_text("SEED: 1\nSOLVER: {MAX_ITER: 1}")
    (tmp_path / "left.yaml").write_text("_BASE_: base.yaml\nSEED: 2\nSOLVER: {BASE_LR: 0.2}")
    (tmp_path / "right.yaml").write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 3}")
    (tmp_path / "x.yaml").write_text("_BASE_: [left.yaml, right.yaml]")
    cfg = load_config(tmp_path / "x.yaml")
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (1, 3, 0.2)
    names = [Path(layer.source).name for layer in config_layers(tmp_path / "x.yaml")]
    assert names == ["left.yaml", "base.yaml", "right.yaml", "x.yaml"]


def test_too_many_files(tmp_path: Path) -> None:
    for step in range(MAX_FILES + 1):
        (tmp_path / f"f{step}.yaml").write_text(f"_BASE_: f{step + 1}.yaml")
    assert f"builds on more than {MAX_FILES} files" in refusal(tmp_path, "_BASE_: f0.yaml")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            ("SOLVER.MAX_ITER", "{[]: 1}"),
            "command line: SOLVER.MAX_ITER must be a whole number, got '{[]: 1}'",
        ),
        (("SOLVER.MAX_ITER", "{{}}"), "got '{{}}'"),
        (("SOLVER.MAX_ITER", "9" * 5000), "SOLVER.MAX_ITER must be a whole number, got '999"),
        (("SOLVER.MAX_ITER", "9" * 30), "must be a whole number of 64 bits, got 9999"),
        (("SOLVER.BASE_LR", "9" * 400), "got a whole number of about 400 digits, which is too large"),
        (("SOLVER.STEPS", "[" * 3000 + "]" * 3000), "must be a list"),
        (("SOLVER.STEPS", "-" * 100_000 + "1"), "SOLVER.STEPS must be"),
        (("MODEL", "(" * 100), "MODEL is a section"),
        (("k" * 100_000, "1"), "unknown key kkk"),
        (("SOLVER.MAX_ITER" + "=1" * 9000,), "write 'SOLVER.MAX_ITER 1=1"),
        (("LST.PHASE_OVERRIDES.1", "{1, 2}"), "must hold numbers, text, True, False or lists"),
    ],
)
def test_wrong_overrides(tmp_path: Path, pair: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(tmp_path, "", *pair)


@pytest.mark.parametrize("value", ["{[]: 1}", "{{}}", "a\\d", "(1", "None"])
def test_text_that_looks_like_python_stays_text(value: str) -> None:
    assert value == load_config(None, ["MODEL.WEIGHT", value]).MODEL.WEIGHT
