"""Results of an ablation: final AP and forgetting of each variant, mean and std over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from maskrcnn_benchmark.incremental.comparison.ablation import Ablation, AblationRun
from maskrcnn_benchmark.incremental.reporting.summary import SUMMARY_FILE
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json, write_text
from maskrcnn_benchmark.visualize.bar_chart import Bar, plot_bars
from maskrcnn_benchmark.visualize.figure import save_figure
from maskrcnn_benchmark.visualize.line_chart import LineChart, plot_lines

Table = dict[str, Any]
BEGIN, END = "<!-- ablation table: begin -->", "<!-- ablation table: end -->"


def build_table(ablation: Ablation, runs: Sequence[AblationRun]) -> Table:
    """Collect the summaries of finished runs.

    Returns:
        {"seeds", "full": name of the first variant, "tasks": {task: {variant: {"reference", "seeds", "AP",
        "groups": {name: ...}, "forgetting", "minus_full", "course"}}}}. AP (all classes, after the last
        phase), groups, forgetting and the difference of AP to the full method with the same seed are {"mean",
        "std", "values"} (std None for one seed, mean None without values); "course" is {"seen", "b0": mean AP
        of the seen classes and of the base classes after every phase}.
    """
    results: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in ablation.variants}
    for run in runs:
        if run.done():
            results[run.variant][run.seed] = _phases(run.folder / SUMMARY_FILE)
    full = next(iter(ablation.variants))
    names = {task for seeds in results.values() for phases in seeds.values() for task in phases[-1]["tasks"]}
    tasks = {
        task: {
            name: _variant(results[name], results[full], task, name in ablation.references)
            for name in results
        }
        for task in sorted(names)
    }
    return {"seeds": list(ablation.seeds), "full": full, "tasks": tasks}


def _phases(path: Path) -> list[Any]:
    """The entries of a summary file; DataError when it holds none."""
    content = read_json(path, "summary")
    if not isinstance(content, dict) or not content.get("phases"):
        raise DataError(f"{path} holds no summary of phases; delete it and start the ablation again")
    return list(content["phases"])


def _variant(seeds: dict[int, list[Any]], full: dict[int, list[Any]], task: str, reference: bool) -> Table:
    """Results of one variant in one task."""
    ends = {seed: phases[-1]["tasks"][task] for seed, phases in seeds.items()}
    rows = list(ends.values())
    pairs = [
        (end["metrics"]["AP"], full[seed][-1]["tasks"][task]["metrics"]["AP"])
        for seed, end in ends.items()
        if seed in full
    ]
    difference = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    groups = list(rows[0]["groups"]) if rows else []
    courses = {
        "seen": [[e["tasks"][task]["metrics"]["AP"] for e in phases] for phases in seeds.values()],
        "b0": [[e["tasks"][task]["groups"]["b0"] for e in phases] for phases in seeds.values()],
    }
    return {
        "reference": reference,
        "seeds": list(ends),
        "AP": _mean_and_std([row["metrics"]["AP"] for row in rows]),
        "groups": {name: _mean_and_std([row["groups"][name] for row in rows]) for name in groups},
        "forgetting": _mean_and_std([row["mean_forgetting"] for row in rows]),
        "minus_full": _mean_and_std(difference),
        "course": {
            name: [_mean_and_std(values)["mean"] for values in zip(*course, strict=True)]
            for name, course in courses.items()
        },
    }


def _mean_and_std(values: Sequence[float | None]) -> Table:
    """Mean and sample std of the defined values."""
    known = [v for v in values if v is not None]
    return {
        "mean": fmean(known) if known else None,
        "std": stdev(known) if len(known) > 1 else None,
        "values": known,
    }


def better_variants(table: Table, task: str) -> list[str]:
    """Ablated variants (without references) whose mean AP is above that of the full method."""
    rows = table["tasks"][task].items()
    known = [(n, r["minus_full"]["mean"]) for n, r in rows if not r["reference"] and n != table["full"]]
    return [name for name, difference in known if difference is not None and difference > 0]


def to_markdown(table: Table) -> str:
    """Format a markdown table per task, mean ± std, and a sentence on the rank of the full method."""
    parts = []
    for task, rows in table["tasks"].items():
        groups = list(dict.fromkeys(name for row in rows.values() for name in row["groups"]))
        header = ["variant", "seeds", "AP", "minus full", *groups, "forgotten"]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        for name, row in rows.items():
            values = [row["AP"], row["minus_full"] if name != table["full"] else None]
            values += [row["groups"].get(group) for group in groups] + [row["forgetting"]]
            title = f"*{name}*" if row["reference"] else name
            lines.append([title, str(len(row["seeds"])), *(_format(value) for value in values)])
        better = better_variants(table, task)
        above = ", ".join(f"{name} (+{_format(rows[name]['minus_full'])})" for name in better)
        sentence = (
            f"The full method does not have the highest mean AP; ablated variants above it: {above}."
            if better
            else "The full method has at least the mean AP of every ablated variant."
        )
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{task} AP after the last phase**\n\n{text}\n\n{sentence}")
    return "\n\n".join(parts) if parts else "No run is finished yet."


def _format(value: Table | None) -> str:
    """Mean and std like `0.610 ± 0.012`; "-" where undefined."""
    if value is None or value["mean"] is None:
        return "-"
    text = f"{value['mean']:.3f}"
    return text if value["std"] is None else f"{text} ± {value['std']:.3f}"


def write_table(table: Table, out: Path) -> list[Path]:
    """Write ablation.json, ablation.md, ablation.png (bars) and ablation_course.png into `out`."""
    write_json(out / "ablation.json", table, indent=1)
    write_text(out / "ablation.md", to_markdown(table) + "\n")
    task = "segm" if "segm" in table["tasks"] else next(iter(table["tasks"]), None)
    if task is None:
        return []
    rows = table["tasks"][task]
    bars = [Bar(name, row["AP"]["values"], row["reference"]) for name, row in rows.items()]
    title = f"{task} AP of all classes after the last phase"
    figures = {
        "ablation.png": plot_bars(title, f"{task} AP (0 to 1); dots: seeds", bars),
        "ablation_course.png": plot_lines([_course_chart(rows, task, name) for name in ("b0", "seen")]),
    }
    for name, figure in figures.items():
        save_figure(figure, out / name)
    return [out / name for name in figures]


def _course_chart(rows: Table, task: str, name: str) -> LineChart:
    """AP of the base classes ("b0") or of all classes seen ("seen") over the phases of every variant."""
    phases = max(len(row["course"][name]) for row in rows.values())
    series = {v: row["course"][name] for v, row in rows.items() if len(row["course"][name]) == phases}
    ticks = ["0 (base)", *(str(p) for p in range(1, phases))]
    what = {"b0": "the base classes", "seen": "all classes seen"}[name]
    return LineChart(f"{task} AP of {what}", "after phase", f"{task} AP (0 to 1)", ticks, series)


def insert_into_page(page: Path, text: str) -> None:
    """Replace the text between the two marks of a markdown page.

    Raises:
        DataError: when the page does not exist or lacks the marks.
    """
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    if BEGIN not in old or END not in old:
        raise DataError(f"{page}: no place for the table; add the lines {BEGIN} and {END}")
    head, tail = old.split(BEGIN)[0], old.split(END)[1]
    write_text(page, f"{head}{BEGIN}\n{text.strip()}\n{END}{tail}")
