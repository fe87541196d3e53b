"""Division of the classes into phases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.evaluation.groups import phase_name
from maskrcnn_benchmark.incremental.plan.phases import ClassInfo, PhasePlan, phase_sizes
from maskrcnn_benchmark.utils.errors import ConfigError, DataError


def plan_from_cfg(sizes: tuple[int, ...]) -> PhasePlan:
    """Classes with ids 10, 20, ... and falling counts."""
    total = sum(sizes)
    infos = (
        ClassInfo(10 * (i + 1), f"c{i}", "f", total - i, total - i, total - i, total - i)
        for i in range(total)
    )
    return PhasePlan(tuple(infos), sizes)


def test_published_sizes() -> None:
    assert phase_sizes(270, 160, 1230) == (270, *[160] * 6)
    assert phase_sizes(270, 80, 1230) == (270, *[80] * 12)
    assert phase_sizes(40, [20, 10, 10], 80) == (40, 20, 10, 10)
    assert phase_sizes(5, 3, 5) == (5,)


def test_uneven_division_proposes_a_list() -> None:
    with pytest.raises(
        ConfigError, match=r"cover 1070 classes.*1203; for example LST.STEP_SIZE \[160, 160, 160, 160"
    ):
        phase_sizes(270, 160, 1203)


@pytest.mark.parametrize(("base", "step"), [(0, 5), (11, 5), (5, 0), (5, [5, 5]), (5, [6, -1])])
def test_impossible_sizes(base: int, step: int | list[int]) -> None:
    with pytest.raises(ConfigError, match=r"LST\."):
        phase_sizes(base, step, 10)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple))
def test_phases_partition_the_labels(sizes: tuple[int, ...]) -> None:
    plan = plan_from_cfg(sizes)
    labels = [label for phase in range(plan.num_phases) for label in plan.new_labels(phase)]
    assert labels == list(range(1, sum(sizes) + 1))
    for phase in range(plan.num_phases):
        assert plan.seen_ids(phase) == [i for group in plan.groups(phase).values() for i in group]
        assert plan.num_old(phase) + sizes[phase] == plan.num_seen(phase) == len(plan.names(phase)) - 1
        assert set(plan.new_ids(phase)) == {
            i for i, g in plan.group_of_category().items() if g == phase_name(phase)
        }


def test_json_round_trip_and_hash() -> None:
    plan = plan_from_cfg((3, 2))
    assert PhasePlan.from_json(plan.to_json()) == plan
    other = PhasePlan((plan.classes[1], plan.classes[0], *plan.classes[2:]), plan.sizes)
    assert plan.classes_hash(0) != other.classes_hash(0) != plan.classes_hash(1)


def test_reports_may_group_otherwise_than_by_phase() -> None:
    joint = plan_from_cfg((6,)).with_report_sizes([3, 2, 1])
    ids = joint.seen_ids(0)
    assert joint.groups(0) == {"b0": ids[:3], "t0": ids[3:5], "t1": ids[5:]}
    assert joint.group_phases() == {"b0": 0, "t0": 0, "t1": 0} and joint.new_ids(0) == ids
    coarse = plan_from_cfg((2, 2, 2)).with_report_sizes((3, 3))
    assert [list(coarse.groups(p)) for p in range(3)] == [[], ["b0"], ["b0", "t0"]]
    assert coarse.group_phases() == {"b0": 1, "t0": 2}
    assert coarse.to_json() == plan_from_cfg((2, 2, 2)).to_json()
    with pytest.raises(ConfigError, match=r"LST.REPORT_SIZES \[3, 2\] cover 5 classes.* have 6"):
        plan_from_cfg((6,)).with_report_sizes([3, 2])


def test_bad_plan_and_phase() -> None:
    with pytest.raises(DataError, match="do not divide 5 classes"):
        PhasePlan(plan_from_cfg((3, 2)).classes, (3, 3))
    with pytest.raises(ConfigError, match="no phase 2: this plan has phases 0"):
        plan_from_cfg((3, 2)).check_phase(2)
