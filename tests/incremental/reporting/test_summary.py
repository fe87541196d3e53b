"""The course of a run: forgetting, files, tables."""

from __future__ import annotations

import csv
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from maskrcnn_benchmark.evaluation.confusion import Confusion
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.lvis import LvisEvaluator
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import derive_val_annotations
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    format_phase_report,
    phase_confusion,
    report_groups,
    write_phase_report,
)
from maskrcnn_benchmark.incremental.reporting.reference import read_reference
from maskrcnn_benchmark.incremental.reporting.summary import (
    build_summary,
    format_summary,
    summary_rows,
    write_events,
    write_summary,
)
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import write_json


def evaluate(
    golden: dict[str, Any], folder: Path, plan: PhasePlan, phase: int, rule: str
) -> EvaluationReport:
    """Reference detections of the classes seen so far, as a phase's report evaluates them."""
    data = derive_val_annotations(golden["lvis_mini_val"], plan, phase, rule)
    images, seen = {im["id"] for im in data["images"]}, set(plan.seen_ids(phase))
    records = json.loads((folder / "detections_val.json").read_text())
    kept = [r for r in records if r["image_id"] in images and r["category_id"] in seen]
    groups = report_groups(plan, phase)
    evaluator = LvisEvaluator(data, [0, *plan.seen_ids(phase)], ("bbox", "segm"), groups=groups)
    return evaluator.evaluate_detections(Detections.from_json(kept))


def confusion_of(golden: dict[str, Any], plan: PhasePlan, report: EvaluationReport, phase: int) -> Confusion:
    """What objects of the seen classes are taken for."""
    return phase_confusion(
        derive_val_annotations(golden["lvis_mini_val"], plan, phase, "all"), report, plan, phase
    )


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_ap_per_phase_equals_the_reference(
    golden: dict[str, Any], golden_lst: Path, mini_plan: PhasePlan, phase: int
) -> None:
    report = evaluate(golden, golden_lst, mini_plan, phase, "positive")
    expected = golden["eval"]["base" if phase == 0 else f"step{phase}"]
    for task in ("bbox", "segm"):
        for name, value in expected[task]["metrics"].items():
            assert report.tasks[task].metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (task, name)
        for group in mini_plan.groups(phase):
            value = expected[task]["per_phase_AP"][f"AP{group}"]
            assert report.tasks[task].groups[group] == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.fixture
def finished(golden: dict[str, Any], golden_lst: Path, mini_plan: PhasePlan, tmp_path: Path) -> Path:
    """A run folder with the reports of all three phases."""
    for phase in range(3):
        report = evaluate(golden, golden_lst, mini_plan, phase, "all")
        folder = tmp_path / f"phase_{phase}" / "report"
        confusion = confusion_of(golden, mini_plan, report, phase)
        write_phase_report(report, mini_plan, phase, folder, confusion=confusion, details={"checkpoint": "x"})
    return tmp_path


def test_phase_report_files(finished: Path, mini_plan: PhasePlan) -> None:
    folder = finished / "phase_1" / "report"
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json",
        "per_class.csv",
        "per_phase.json",
        "confusion.json",
        "lvis_dt.json",
    }
    rows = list(csv.DictReader((folder / "per_class.csv").open()))
    assert [int(r["category_id"]) for r in rows] == mini_plan.seen_ids(1)
    assert [r["group"] for r in rows] == ["b0"] * 6 + ["t0"] * 5
    per_phase = json.loads((folder / "per_phase.json").read_text())
    assert per_phase["groups"] == {"b0": 6, "t0": 5} and set(per_phase["segm"]) == {"b0", "t0", "seen"}
    objects = json.loads((folder / "confusion.json").read_text())["objects"]
    assert list(objects) == ["b0", "t0"] and all(len(row) == 4 and sum(row) > 0 for row in objects.values())
    detections = json.loads((folder / "lvis_dt.json").read_text())
    assert {"image_id", "category_id", "bbox", "segmentation", "score"} <= set(detections[0])


def test_forgetting_is_ap_then_minus_ap_now(finished: Path, mini_plan: PhasePlan) -> None:
    summary = build_summary(mini_plan, finished)
    first, second, third = (e["tasks"]["segm"] for e in summary["phases"])
    assert first["forgetting"] == {} and first["mean_forgetting"] is None
    assert second["forgetting"] == {"b0": first["groups"]["b0"] - second["groups"]["b0"]}
    assert third["forgetting"]["t0"] == second["groups"]["t0"] - third["groups"]["t0"]
    assert third["mean_forgetting"] == pytest.approx(sum(third["forgetting"].values()) / 2)


def test_other_groups_are_followed_from_the_phase_that_completes_them(
    golden: dict[str, Any], golden_lst: Path, mini_plan: PhasePlan, tmp_path: Path
) -> None:
    plan = mini_plan.with_report_sizes((4, 5, 7))
    for phase in range(3):
        report = evaluate(golden, golden_lst, plan, phase, "all")
        confusion = confusion_of(golden, plan, report, phase)
        folder = tmp_path / f"phase_{phase}" / "report"
        write_phase_report(report, plan, phase, folder, confusion=confusion, details={})
    first, second, third = (e["tasks"]["segm"] for e in build_summary(plan, tmp_path)["phases"])
    assert list(first["groups"]) == ["b0"] and list(second["groups"]) == ["b0", "t0"]
    assert list(third["forgetting"]) == ["b0", "t0"]
    assert third["forgetting"]["b0"] == first["groups"]["b0"] - third["groups"]["b0"]
    assert third["forgetting"]["t0"] == second["groups"]["t0"] - third["groups"]["t0"]
    rows = list(csv.DictReader((tmp_path / "phase_2" / "report" / "per_class.csv").open()))
    assert [r["group"] for r in rows] == ["b0"] * 4 + ["t0"] * 5 + ["t1"] * 7


def test_summary_files_and_table(finished: Path, mini_plan: PhasePlan) -> None:
    summary = build_summary(mini_plan, finished)
    write_summary(summary, mini_plan, finished)
    assert json.loads((finished / "summary.json").read_text()) == summary
    rows = list(csv.DictReader((finished / "summary.csv").open()))
    assert len(rows) == 3 and rows[0]["segm/AP/t0"] == "" and rows[2]["seen"] == "16"
    assert float(rows[2]["segm/AP"]) == summary_rows(summary)[2]["segm/AP"]
    with Image.open(finished / "summary.png") as image:
        assert image.size[0] >= 1600
    text = format_summary(summary, mini_plan)
    assert "segm AP per phase" in text and "forgotten" in text
    assert f"{summary['phases'][2]['tasks']['segm']['groups']['t0']:.3f}" in text


def test_missing_reports_are_left_out(
    finished: Path, mini_plan: PhasePlan, golden: dict[str, Any], golden_lst: Path
) -> None:
    (finished / "phase_0" / "report" / "metrics.json").unlink()
    summary = build_summary(mini_plan, finished)
    assert [e["phase"] for e in summary["phases"]] == [1, 2]
    assert summary["phases"][0]["tasks"]["bbox"]["forgetting"] == {"b0": None}
    write_summary(summary, mini_plan, finished)
    empty = build_summary(mini_plan, finished / "nothing")
    assert format_summary(empty, mini_plan) == "no phase has been reported yet"
    text = format_phase_report(evaluate(golden, golden_lst, mini_plan, 1, "all"), mini_plan, 1)
    assert "Phase 1 (model after step 1): 11 classes, 32 images" in text and "[10,100)" in text


def test_class_table_follows_every_class(finished: Path, mini_plan: PhasePlan) -> None:
    tables = [
        {int(r["category_id"]): r for r in csv.DictReader(path.open())}
        for path in sorted(finished.glob("phase_*/report/per_class.csv"))
    ]
    assert not any(name.endswith("change") for name in next(iter(tables[0].values())))
    checked = 0
    for category, row in tables[2].items():
        for phase in (0, 1):
            assert row[f"segm_AP_phase_{phase}"] == tables[phase].get(category, {"segm_AP": ""})["segm_AP"]
        own = next(p for p in range(3) if category in mini_plan.new_ids(p))
        if own == 2 or not row["segm_AP"] or not tables[own][category]["segm_AP"]:
            assert row["segm_change"] == ""
        else:
            lost = float(row["segm_AP"]) - float(tables[own][category]["segm_AP"])
            assert float(row["segm_change"]) == pytest.approx(lost)
            checked += 1
    assert checked >= 8


def _reference(folder: Path, plan: PhasePlan, ap: float) -> Path:
    """A run of one phase in which every class but the first two has the same AP."""
    joint = replace(plan, sizes=(len(plan.classes),))
    write_json(folder / "classes.json", joint.to_json())
    first, second, *others = plan.seen_ids(2)
    values = {str(first): ap + 0.2, str(second): -1.0} | {str(category): ap for category in others}
    tasks = {"segm": {"metrics": {"AP": ap}, "groups": {"b0": ap}, "per_category": values}}
    write_json(folder / "phase_0" / "report" / "metrics.json", {"tasks": tasks})
    return folder


def test_intransigence_is_what_lacks_to_the_reference(
    finished: Path, mini_plan: PhasePlan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = _reference(tmp_path_factory.mktemp("joint"), mini_plan, 0.9)
    summary = build_summary(mini_plan, finished, read_reference(folder, mini_plan))
    plain = build_summary(mini_plan, finished)
    write_summary(plain, mini_plan, finished)
    with Image.open(finished / "summary.png") as image:
        height = image.height
    first, second, third = (e["tasks"]["segm"] for e in summary["phases"])
    base = (1.1 + 4 * 0.9) / 5
    assert first["intransigence"] == pytest.approx({"b0": base - first["groups"]["b0"]})
    assert third["intransigence"]["b0"] == first["intransigence"]["b0"]
    assert third["intransigence"]["t0"] == pytest.approx(0.9 - second["groups"]["t0"])
    known = [value for value in third["intransigence"].values() if value is not None]
    assert third["mean_intransigence"] == pytest.approx(sum(known) / len(known))
    assert summary["phases"][2]["tasks"]["bbox"]["mean_intransigence"] is None  # not in the reference
    assert "intransigence" not in plain["phases"][2]["tasks"]["segm"]
    assert "intransigence" in format_summary(summary, mini_plan)
    assert "intransigence" not in format_summary(plain, mini_plan)
    assert summary_rows(summary)[2]["segm/intransigence"] == third["mean_intransigence"]
    write_summary(summary, mini_plan, finished)
    with Image.open(finished / "summary.png") as image:
        assert image.height == pytest.approx(1.5 * height, abs=2)  # a third row of charts


def test_a_reference_must_fit(finished: Path, mini_plan: PhasePlan, tmp_path: Path) -> None:
    assert read_reference("", mini_plan) is None
    with pytest.raises(ConfigError, match=r"LST\.REFERENCE_RUN: .* is no folder of an LST run"):
        read_reference(tmp_path / "nowhere", mini_plan)
    folder = _reference(tmp_path / "joint", mini_plan, 0.5)
    with pytest.raises(ConfigError, match="has 16 classes, this run 11, 11 of them in both"):
        read_reference(folder, PhasePlan(mini_plan.classes[:11], (6, 5)))
    (folder / "phase_0" / "report" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="no report of its last phase yet"):
        read_reference(folder, mini_plan)


def _events(folder: Path) -> list[tuple[int, dict[str, float], bool]]:
    """(step, scalars, whether it starts a session) of all events, in the order of their files."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            started = event.HasField("session_log")
            found.append((event.step, {v.tag: v.simple_value for v in event.summary.value}, started))
            place += 12 + length + 4
    return found


def test_scalars_are_written_phase_by_phase(finished: Path, mini_plan: PhasePlan) -> None:
    whole = build_summary(mini_plan, finished)
    before = None
    for number in (1, 2, 3):
        summary = {"phases": whole["phases"][:number]}
        write_events(summary, before, finished)
        write_events(summary, summary, finished)  # nothing new, nothing written
        before = summary
    numbers = [(step, values) for step, values, _ in _events(finished / "tensorboard") if values]
    assert [step for step, _ in numbers] == [0, 1, 2]
    row = summary_rows(whole)[2]
    expected = {re.sub(r"[^-/\w.]", "_", k): v for k, v in row.items() if k != "phase" and v is not None}
    assert numbers[2][1] == pytest.approx(expected, rel=1e-6)
    assert {"segm/AP/t0", "segm/forgetting/b0", "segm/APr"} <= set(expected)
    starts = [step for step, _, started in _events(finished / "tensorboard") if started]
    assert starts == [0, 1, 2]  # a viewer drops older values from there on
