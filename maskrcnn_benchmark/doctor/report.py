"""The doctor's report as text and as JSON."""

from __future__ import annotations

import textwrap
from typing import Any

from maskrcnn_benchmark.doctor.finding import LEVELS, Finding
from maskrcnn_benchmark.doctor.run import Report
from maskrcnn_benchmark.utils.table import format_table
from maskrcnn_benchmark.utils.text import printable

_WIDTH, _VALUE = 118, 24
_LISTED = 5


def format_doctor_report(report: Report) -> str:
    """Format settings, sections and, as the last line, the verdict."""
    parts = [_settings(report)] if report.settings else []
    for section, findings in report.sections.items():
        lines = [line for finding in findings for line in _lines(finding)]
        if lines:
            parts.append("\n".join([section, *lines]))
    return "\n\n".join([*parts, verdict(report)])


def verdict(report: Report) -> str:
    """Sum up in one line: how many errors and warnings, and which keys to look at."""
    counts = {level: len(report.of_level(level)) for level in LEVELS}
    errors, warnings = counts["error"], counts["warning"]
    if not errors and not warnings:
        meant = "no contents were read (--quick)" if report.quick else "ready to run"
        return f"no errors, no warnings ({_count(counts['note'], 'note')}): {meant}"
    worst = report.of_level("error") or report.of_level("warning")
    keys = list(dict.fromkeys(f.keys[0] for f in worst if f.keys))
    named = ", ".join(keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")
    text = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    what = "fix" if errors else "look at"
    return f"{text}: {what} {named}" if named else text


def report_json(report: Report) -> dict[str, Any]:
    """Return the report as plain data; docs/doctor.md describes it."""
    findings = [
        {"section": section, "level": f.level, "keys": list(f.keys), "found": f.text, "advice": f.advice}
        for section, findings_of in report.sections.items()
        for f in findings_of
    ]
    settings = [
        {"key": s.key, "value": s.value, "default": s.default, "source": s.source, "meaning": s.meaning}
        for s in report.settings
    ]
    return {
        "config_file": report.config_file,
        "overrides": report.overrides,
        "settings": settings,
        "findings": findings,
        "counts": {level: len(report.of_level(level)) for level in LEVELS},
        "verdict": verdict(report),
        "exit_status": report.exit_status,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _short(value: Any) -> str:
    """Shorten a value for the table."""
    text = "-" if value is None else (value or '""') if isinstance(value, str) else str(value)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _settings(report: Report) -> str:
    """Format the table of settings."""
    rows = [(s.key, _short(s.value), _short(s.default), s.source, s.meaning) for s in report.settings]
    headers = ("key", "value", "default", "set by", "meaning")
    return "settings that are not at their defaults\n" + format_table(headers, rows)


def _lines(finding: Finding) -> list[str]:
    """Format a finding as lines: level, keys and text; the advice below."""
    keys = f"{', '.join(finding.keys)}: " if finding.keys and finding.level != "ok" else ""
    first, rest = f"  {finding.level:<8} ", " " * 11
    text = printable(keys + finding.text)
    lines = textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest)
    if finding.advice:
        lines += textwrap.wrap(
            printable(f"-> {finding.advice}"), _WIDTH, initial_indent=rest, subsequent_indent=f"{rest}   "
        )
    return lines
