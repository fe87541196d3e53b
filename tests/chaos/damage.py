"""Damage every file of a small long-tail run in many ways, run it again, compare with the whole run.

    python tests/chaos/damage.py --out FOLDER [--seed 0] [--cases N] [--stages] [--json FILE]

A case changes one file of the finished run or, with --stages, of the run as it was after one of its stages.
Exit status 0: every run ended with the results of the undamaged one, to the bit, and named the damaged file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compare import differences
from processes import ROOT, Forked, preload

from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.incremental.pipeline import runner

LIMIT_SECONDS = 300.0
ASIDE = ".damaged"
# Records for people: what is lost of them cannot be trained again for their sake.
LOGS = ("metrics.jsonl",)
# Read only when the final checkpoint of the phase is damaged too, and verified then.
UNCHECKED = re.compile(r"model_\d{7}\.pth")


def flip(path: Path, chance: random.Random) -> None:
    """Flip one bit; size and time stay, as after a fault of the disk."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path, chance: random.Random) -> None:
    """Cut the end off."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def empty(path: Path, _: random.Random) -> None:
    """Leave no content."""
    path.write_bytes(b"")


def delete(path: Path, _: random.Random) -> None:
    """Remove the file."""
    path.unlink()


def garbage(path: Path, chance: random.Random) -> None:
    """Replace the content by random bytes."""
    path.write_bytes(chance.randbytes(chance.randrange(1, 3000)))


def folder(path: Path, _: random.Random) -> None:
    """Put a folder in the place of the file."""
    path.unlink()
    path.mkdir()


def foreign(path: Path, chance: random.Random) -> None:
    """Take the content of another file of this kind, as if it came from another run."""
    run = next(p for p in path.parents if p.name == "run")
    others = [p for p in sorted(run.rglob(f"*{path.suffix}")) if p.is_file() and p != path]
    shutil.copyfile(chance.choice(others), path) if others else garbage(path, chance)


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    f.__name__: f for f in (flip, truncate, empty, delete, garbage, folder, foreign)
}


@dataclass
class Outcome:
    """Cases by kind of damage, stages that were done again, and failures."""

    cases: Counter[str] = field(default_factory=Counter)
    redone: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class DamageCampaign:
    """Runs in one folder `out`/run, which is put back before each case: checkpoints hold the path."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.run = out, out / "run"
        self.random = random.Random(seed)
        self.outcome = Outcome()
        data = out / "data"
        generate_demo(data, DemoOptions(train=60, val=12, size=64), report=lambda _: None)
        images = data / "images"
        self._arguments = [
            "--config-file", str(Path(__file__).with_name("lst.yaml")),
            "LST.ANN_TRAIN", str(data / "train.json"), "LST.IMG_TRAIN", str(images / "train"),
            "LST.ANN_VAL", str(data / "val.json"), "LST.IMG_VAL", str(images / "val"),
            "OUTPUT_DIR", str(self.run), "DATALOADER.NUM_WORKERS", "0",
        ]  # fmt: skip

    def start(self) -> tuple[int, str]:
        """Start the training command; its exit status, and what it printed."""
        console = self.out / "console.txt"
        console.unlink(missing_ok=True)
        process, began = Forked(self._arguments, console), time.monotonic()
        while (status := process.poll()) is None:
            if time.monotonic() > began + LIMIT_SECONDS:
                process.kill()
                return -9, "it does not end"
            time.sleep(0.01)
        return status, console.read_text()

    def whole(self) -> dict[str, Path]:
        """Run without damage; copies of its folder after each stage, and at the end ("")."""
        snapshots = self.out / "snapshots"
        finish = runner.StageRunner._finish

        def keep(self: runner.StageRunner, stage: runner.Stage) -> None:
            finish(self, stage)
            shutil.copytree(self.context.run_dir, snapshots / stage.key.replace("/", " "))

        runner.StageRunner._finish = keep  # type: ignore[method-assign]
        try:
            status, text = self.start()
        finally:
            runner.StageRunner._finish = finish  # type: ignore[method-assign]
        if status:
            raise SystemExit(f"the undamaged run failed: {text[-2000:]}")
        shutil.copytree(self.run, self.out / "whole")
        stages = {p.name.replace(" ", "/"): p for p in sorted(snapshots.iterdir(), key=_age)}
        return {**stages, "": self.out / "whole"}

    def case(self, snapshot: Path, name: str, kind: str) -> None:
        """Damage file `name` of a snapshot and run on from there."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(snapshot, self.run)
        KINDS[kind](self.run / name, self.random)
        changed = not (self.run / name).is_file() or _differs(self.run / name, snapshot / name)
        status, text = self.start()
        self.outcome.cases[kind] += 1
        self.outcome.redone.update(set(re.findall(r"; ([\w/]+) is done again", text)))
        # its damage is not mended by training again
        kept = Path(name).name in LOGS or UNCHECKED.fullmatch(Path(name).name)
        where = f"{kind} {snapshot.name}/{name}"
        if status or "Traceback" in text:
            self.outcome.problems.append(f"{where}: status {status}: {text.strip().splitlines()[-1:]}")
            return
        if changed and name not in text and not UNCHECKED.fullmatch(Path(name).name):
            self.outcome.problems.append(f"{where}: the damage is not named")
        for line in differences(self.out / "whole", self.run, ASIDE, self.run, name if kept else ""):
            if not kept or not line.startswith(name):
                self.outcome.problems.append(f"{where}: {line}")

    def execute(self, cases: int, stages: bool) -> Outcome:
        """Run every case, or a random choice of `cases` (0: all)."""
        snapshots = self.whole()
        chosen = snapshots if stages else {"": snapshots[""]}
        todo = [
            (snapshot, name, kind)
            for snapshot in chosen.values()
            for name in _files(snapshot)
            for kind in KINDS
        ]
        if 0 < cases < len(todo):
            todo = self.random.sample(todo, cases)
        for number, case in enumerate(todo, 1):
            self.case(*case)
            if number % 25 == 0:
                print(f"{number}/{len(todo)} cases, {len(self.outcome.problems)} problems", flush=True)
        return self.outcome


def _age(path: Path) -> int:
    """Time of the record of a snapshot."""
    return (path / "state.json").stat().st_mtime_ns


def _differs(path: Path, other: Path) -> bool:
    """Whether two JSON files differ in content, others in a byte."""
    one, two = path.read_bytes(), other.read_bytes()
    try:
        return bool(json.loads(one) != json.loads(two)) if path.name.startswith("state.") else one != two
    except ValueError:
        return True


def _files(run: Path) -> list[str]:
    """Files of a run but its logs and event files."""
    skipped = ("log.txt", "run.lock")
    paths = (p for p in run.rglob("*") if p.is_file() and p.name not in skipped and p.stat().st_size)
    return sorted(str(p.relative_to(run)) for p in paths if p.parent.name != "tensorboard")


def main() -> int:
    """Parse, run, print the outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "damage", help="folder, written anew")
    parser.add_argument("--cases", type=int, default=0, help="a random choice of so many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", action="store_true", help="also damage the run after each of its stages")
    parser.add_argument("--json", type=Path, help="write the outcome")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(args.out, ignore_errors=True)
    began = time.monotonic()
    preload()
    outcome = DamageCampaign(args.out.resolve(), args.seed).execute(args.cases, args.stages)
    for line in outcome.problems:
        print(f"PROBLEM {line}")
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.cases.items()))
    redone = ", ".join(f"{stage} {count}" for stage, count in sorted(outcome.redone.items()))
    verdict = "FAILED" if outcome.problems else "passed: final weights and results equal to the bit"
    seconds = time.monotonic() - began
    print(
        f"{outcome.cases.total()} cases ({kinds}) in {seconds:.0f} s, seed {args.seed}; done again: {redone}"
        f"\n{verdict}"
    )
    if args.json:
        args.json.write_text(json.dumps(asdict(outcome)))
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
