"""Feed damaged files of every kind to the project's readers, and count how they end.

    python tests/fuzz/campaign.py [--cases 40000] [--seed 0] [--kinds annotations,config] [--jobs 2]
                                  [--limit 10] [--out FOLDER] [--json FILE] [--only KIND:INDEX]

Outcomes: accepted; refused (a UsageError of one line); and faults: crash (a signal), hang (over 10 s),
traceback (any other error), memory (over 2 GiB), untidy (a message of several or endless lines), late
(accepted when it was opened, refused when it was used), silent (flipped bits give other values). Inputs of
faults are kept below FOLDER/faults. Exit status 0: no fault. `--only` runs one case in this process and
leaves its files.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from kinds_config import Config
from kinds_images import Images
from kinds_published import Cityscapes, Published
from kinds_records import Annotations, CachedIndex, PascalVoc, Results
from kinds_run import RunFiles
from kinds_selftest import SelfTest
from kinds_weights import LegacyWeights, Pickles, ZipWeights
from runner import CLASSES, FAULTS, LIMIT_SECONDS, Kind, Result, run_case, run_cases

from maskrcnn_benchmark.utils.table import format_table

# Kind of input -> its part of all cases.
PARTS: dict[type[Kind], float] = {
    Annotations: 0.13,
    Results: 0.10,
    CachedIndex: 0.03,
    PascalVoc: 0.05,
    Cityscapes: 0.03,
    Published: 0.06,
    Config: 0.14,
    Pickles: 0.10,
    ZipWeights: 0.12,
    LegacyWeights: 0.06,
    Images: 0.09,
    RunFiles: 0.08,
}
SHOWN = 40


def parse_arguments() -> argparse.Namespace:
    """Command line of the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=40_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    names = ", ".join(kind.name for kind in PARTS)
    parser.add_argument("--kinds", help=f"some of {names}")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds of a case")
    parser.add_argument("--out", type=Path, help="folder of the inputs (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the counts and faults")
    parser.add_argument("--only", metavar="KIND:INDEX", help="repeat one case of the seed")
    return parser.parse_args()


def chosen_kinds(names: str | None, cases: int) -> list[tuple[Kind, int]]:
    """Kinds and their number of cases."""
    known = {kind.name: kind for kind in [*PARTS, SelfTest]}
    chosen = [kind for kind in PARTS] if names is None else [known[name] for name in names.split(",")]
    total = sum(PARTS.get(kind, 1.0) for kind in chosen)
    return [(kind(), max(1, round(cases * PARTS.get(kind, 1.0) / total))) for kind in chosen]


def main() -> int:
    """Prepare, run, print; 1 when there was a fault."""
    args = parse_arguments()
    torch.set_num_threads(1)
    logging.getLogger("maskrcnn_benchmark").addHandler(logging.NullHandler())
    logging.getLogger("maskrcnn_benchmark").propagate = False
    out = args.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    only, _, index = (args.only or "").partition(":")
    kinds = chosen_kinds(only or args.kinds, args.cases)
    for kind, _ in kinds:
        (out / "seeds" / kind.name).mkdir(parents=True, exist_ok=True)
        kind.prepare(out / "seeds" / kind.name)
    if only:
        return repeat(kinds[0][0], args.seed, int(index), out)
    began = time.monotonic()
    results = []
    for result in run_cases(kinds, args.seed, args.jobs, out, args.limit):
        results.append(result)
        if result.outcome in FAULTS:
            print(f"{result.outcome}: {result.kind}:{result.index} {result.signature}", flush=True)
    seconds = time.monotonic() - began
    print(report(results, out))
    print(f"{len(results)} cases in {seconds:.0f} s, seed {args.seed}")
    if args.json:
        args.json.write_text(json.dumps(content(results, args.seed, seconds), indent=1))
    return 1 if any(result.outcome in FAULTS for result in results) else 0


def repeat(kind: Kind, seed: int, index: int, out: Path) -> int:
    """Run one case here, and say how it ends."""
    result = run_case(kind, seed, index, out / "only")
    print(f"{result.outcome} {result.signature}\n{result.message}\nits files are in {out / 'only'}")
    return 1 if result.outcome in FAULTS else 0


def report(results: list[Result], out: Path) -> str:
    """Tables of the outcomes by kind, and of the causes of faults."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    causes: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for result in results:
        counts[result.kind][result.outcome] += 1
        if result.outcome in FAULTS:
            causes[result.kind, result.outcome, result.signature].append(result.index)
    total = sum(counts.values(), Counter())
    rows = [
        [kind, sum(count.values()), *(count[name] for name in CLASSES)]
        for kind, count in [*counts.items(), ("all", total)]
    ]
    text = format_table(["kind", "cases", *CLASSES], rows)
    if causes:
        ordered = sorted(causes.items(), key=lambda item: -len(item[1]))
        listed = [[*cause, len(indices), indices[0]] for cause, indices in ordered[:SHOWN]]
        text += f"\n\n{len(causes)} causes of faults; inputs are in {out / 'faults'}\n"
        text += format_table(["kind", "outcome", "cause", "cases", "first"], listed)
    return text


def content(results: list[Result], seed: int, seconds: float) -> dict[str, object]:
    """What the JSON file holds."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result.kind][result.outcome] += 1
    faults = [vars(result) for result in results if result.outcome in FAULTS]
    return {"cases": len(results), "seed": seed, "seconds": seconds, "kinds": counts, "faults": faults}


if __name__ == "__main__":
    sys.exit(main())
