"""Kill a long-tail run at many moments, start it again each time, compare with an unbroken run.

    python tests/chaos/campaign.py --out FOLDER [--kills 25] [--seed 0] [--workers 2] [--fork] [--json FILE]

Kills hit each stage of each phase (at a random time inside it), random times of the run and, with --fork,
renames; with --fork the disk is also full at times. Exit status 0: all kinds of stages were hit, nothing was
lost, all results are equal to the bit.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compare import differences
from processes import (
    ROOT,
    Command,
    Fault,
    Forked,
    children,
    preload,
    saved_iterations,
    stage_now,
    stages,
    wait_for_end,
)

from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo

KINDS = ("prepare", "dump", "grow", "replay", "train", "report")
ORPHAN_SECONDS = 10.0
LIMIT_SECONDS = 900.0
RUNS = 8
FULL = re.compile(r"^error: \S+ cannot be written: No space left on device; .*free some space")
WITH_WORKERS = "broken_with_workers"


@dataclass
class Outcome:
    """Outcome: stage of each kill ("start" or "between" outside of stages), and failures.

    `full_disks`: the last line of every run that ended because the disk was full.
    """

    hits: list[str] = field(default_factory=list)
    full_disks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        """Kills per kind of stage."""
        return Counter(hit.split("/")[-1] for hit in self.hits)


class Campaign:
    """Runs into folders below `out`: `whole` unbroken, `broken_<n>` killed again and again.

    One more is killed that loads its images with `workers` processes, unlike the unbroken one.
    """

    def __init__(self, out: Path, *, seed: int, fork: bool, workers: int) -> None:
        self.out, self.fork, self.workers = out, fork, workers
        self.random = random.Random(seed)
        self.outcome = Outcome()
        self.orphans: list[int] = []
        self._aimed: set[str] = set()
        self.durations: dict[str, float] = {}
        data = out / "data"
        generate_demo(data, DemoOptions(train=60, val=12, size=64), report=lambda _: None)
        images = data / "images"
        self._arguments = [
            "--config-file", str(Path(__file__).with_name("lst.yaml")),
            "LST.ANN_TRAIN", str(data / "train.json"), "LST.IMG_TRAIN", str(images / "train"),
            "LST.ANN_VAL", str(data / "val.json"), "LST.IMG_VAL", str(images / "val"),
        ]  # fmt: skip

    def start(self, run: Path, target: str = "") -> Forked | Command:
        """Start the training command of a run folder."""
        run.mkdir(parents=True, exist_ok=True)
        workers = self.workers if run.name == WITH_WORKERS else 0
        arguments = [*self._arguments, "OUTPUT_DIR", str(run), "DATALOADER.NUM_WORKERS", str(workers)]
        console = run / "console.txt"
        if not self.fork:
            return Command(arguments, console)
        kind = self.random.choice(("before", "after")) if target == "rename" else target
        faulty = target in ("rename", "full")
        return Forked(arguments, console, Fault(kind, self.random.randint(1, 8)) if faulty else None)

    def whole(self) -> Path:
        """Run without a kill and measure the duration of each stage."""
        run = self.out / "whole"
        process, seen, began = self.start(run), {}, time.monotonic()
        while (status := process.poll()) is None:
            seen.setdefault(stage_now(run), time.monotonic())
            time.sleep(0.001)
        end = time.monotonic()
        if status:
            raise SystemExit(f"the unbroken run failed: {last_line(run)}")
        times = [*((k, t) for k, t in seen.items() if k not in ("start", "between")), ("", end)]
        self.durations = {k: after - t for (k, t), (_, after) in zip(times, times[1:], strict=False)}
        self.durations["whole"] = end - began
        return run

    def break_run(self, run: Path, targets: list[str]) -> None:
        """Start `run`, kill it once per target, let it end, and record failures."""
        for target in [*targets, ""]:
            saved, read = saved_iterations(run), size(run / "log.txt")
            process = self.start(run, target)
            status = self.kill_at(process, run, target)
            self.check_resume(run, saved, read)
            if status is None:
                self.outcome.hits.append(stage_now(run))
            elif status == 2 and target == "full" and FULL.search(last_line(run)):
                self.outcome.full_disks.append(last_line(run))
            else:
                if status:
                    self.outcome.problems.append(f"{run.name}: ended with status {status}: {last_line(run)}")
                return

    def kill_at(self, process: Forked | Command, run: Path, target: str) -> int | None:
        """Kill at the target; None when killed, else the exit status of a run that ended before."""
        began = time.monotonic()
        moment = self._moment(target)
        reached: float | None = None if target in self.durations else began
        while (status := process.poll()) is None:
            now = time.monotonic()
            if reached is None and (stages(run).get(target) is not None):
                reached = now
            if moment is not None and reached is not None and now >= reached + moment:
                self.orphans += children(process.pid)
                process.kill()
                return None
            if now > began + LIMIT_SECONDS:
                process.kill()
                raise SystemExit(f"{run.name} does not end: {last_line(run)}")
            time.sleep(0.0005)
        return None if status < 0 else status

    def _moment(self, target: str) -> float | None:
        """Seconds after the target was reached; None: no kill from here."""
        if target in ("", "rename", "full"):
            return None
        if target == "time":
            return self.random.uniform(0, self.durations["whole"] / 3)
        kind = target.split("/")[-1]
        if kind not in self._aimed:
            # at once: a short stage is over soon
            self._aimed.add(kind)
            return 0.0
        return self.random.uniform(0, self.durations[target])

    def check_resume(self, run: Path, saved: dict[str, int], read: int) -> None:
        """Check that training resumed from the checkpoints that existed before the start."""
        text = (run / "log.txt").read_text()[read:] if (run / "log.txt").exists() else ""
        for phase, iteration in re.findall(r"resuming \S*/(phase_\d+) at iteration (\d+)", text):
            if int(iteration) != saved.get(phase) and saved.get(phase) != -1:
                self.outcome.problems.append(f"{phase} went on at {iteration}, saved was {saved.get(phase)}")
        for phase, rest in re.findall(r"=== (phase_\d+)/train[^\n]*\n([^=]*)", text):
            if saved.get(phase, 0) and "nothing to resume" in rest:
                self.outcome.problems.append(f"{phase} began anew, saved was {saved[phase]}")

    def targets(self, kills: int) -> list[str]:
        """Targets in the order of the run: each stage once, the others at random."""
        known = [key for key in self.durations if key != "whole"]
        more = ["time", "rename", "full"] if self.fork else ["time"]
        free = max(0, kills - len(known))
        extra = [self.random.choice([*known, *more, *more]) for _ in range(free)]
        chosen = (known + extra)[:kills] if kills >= len(known) else self.random.sample(known, kills)
        places = {key: float(i) for i, key in enumerate(known)}
        return sorted(chosen, key=lambda t: places.get(t, self.random.uniform(-1, len(known))))

    def execute(self, kills: int) -> Outcome:
        """Run the campaign: more runs are killed until there are enough kills of each kind."""
        whole = self.whole()
        for number in range(RUNS):
            missing = self._missing()
            left = max(kills - len(self.outcome.hits), 0)
            if number and not missing and not left:
                break
            aimed = [t for t in self.durations if t.split("/")[-1] in missing]
            self._break_and_compare(whole, f"broken_{number}", self.targets(left) if left else aimed)
        if self.workers:
            self._break_and_compare(whole, WITH_WORKERS, self.targets(max(4, kills // 4)))
        self.outcome.problems += [f"no kill fell into stage {kind}" for kind in self._missing()]
        alive = wait_for_end(self.orphans, ORPHAN_SECONDS)
        self.outcome.problems += [f"process {pid} outlived its run" for pid in alive]
        return self.outcome

    def _missing(self) -> list[str]:
        """Kinds of stages without a kill."""
        return [kind for kind in KINDS if kind not in self.outcome.kinds()]

    def _break_and_compare(self, whole: Path, name: str, targets: list[str]) -> None:
        run = self.out / name
        self.break_run(run, targets)
        self.outcome.problems += [f"{name}: {line}" for line in differences(whole, run)]
        print(f"{name}: {len(self.outcome.hits)} kills so far, {dict(self.outcome.kinds())}", flush=True)


def last_line(run: Path) -> str:
    """Last line of the output of a run."""
    return ((run / "console.txt").read_text().splitlines() or [""])[-1]


def size(path: Path) -> int:
    """Length of a text file; 0 when it does not exist."""
    return len(path.read_text()) if path.exists() else 0


def main() -> int:
    """Parse, run, print the outcome."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "chaos", help="folder, written anew")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=2, help="loader workers of one more run; 0: no such run"
    )
    parser.add_argument(
        "--fork", action="store_true", help="fork runs from this process: faster, kills at renames"
    )
    parser.add_argument("--json", type=Path, help="write the outcome")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(args.out, ignore_errors=True)
    began = time.monotonic()
    if args.fork:
        preload()
    campaign = Campaign(args.out, seed=args.seed, fork=args.fork, workers=args.workers)
    outcome = campaign.execute(args.kills)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.kinds().items()))
    for line in outcome.problems:
        print(f"PROBLEM {line}")
    full = f", {len(outcome.full_disks)} full disks" if outcome.full_disks else ""
    verdict = "FAILED" if outcome.problems else "passed: final weights and results equal to the bit"
    print(
        f"{len(outcome.hits)} kills ({kinds}){full} in {time.monotonic() - began:.0f} s, "
        f"seed {args.seed}: {verdict}"
    )
    if args.json:
        args.json.write_text(json.dumps({**asdict(outcome), "kinds": dict(outcome.kinds())}))
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
