"""Learning rate, warm-up, milestones, epochs, checkpoints."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.doctor.schedule import check_schedule

RATE = "SOLVER.BASE_LR"


@pytest.mark.parametrize(
    ("rate", "batch", "accumulation", "level"),
    [
        (0.005, 4, 1, "ok"),
        (0.01, 4, 1, "ok"),  # twice the rule
        (0.0101, 4, 1, "warning"),
        (0.0025, 4, 1, "ok"),  # half the rule
        (0.0024, 4, 1, "warning"),
        (0.02, 4, 4, "ok"),
        (0.0, 4, 1, "warning"),
    ],
)
def test_linear_scaling(plain, the, rate: float, batch: int, accumulation: int, level: str) -> None:
    pairs = (RATE, rate, "SOLVER.IMS_PER_BATCH", batch, "SOLVER.ACCUMULATION_STEPS", accumulation)
    finding = the(check_schedule, plain(*pairs), level, "images per update")
    assert finding.keys == (RATE, "SOLVER.IMS_PER_BATCH")
    assert level == "ok" or finding.advice == "set SOLVER.BASE_LR 0.005"


@pytest.mark.parametrize(("rate", "level"), [(0.0025, "ok"), (0.00124, "warning"), (0.0051, "warning")])
def test_one_stage_models_have_half_the_rate(plain, the, rate: float, level: str) -> None:
    pairs = ("MODEL.FCOS_ON", True, "MODEL.BACKBONE.CONV_BODY", "R-10-FPN-RETINANET", "MODEL.MASK_ON", False)
    wide = ("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 64, "SOLVER.IMS_PER_BATCH", 4)
    finding = the(check_schedule, plain(*pairs, *wide, RATE, rate), level, "published: 0.01 per 16")
    assert level == "ok" or finding.advice == "set SOLVER.BASE_LR 0.0025"


@pytest.mark.parametrize(
    ("rate", "found"), [(0.0006, "below the rule"), (0.000625, ""), (0.01, ""), (0.02, "times the rule")]
)
def test_steps_may_have_the_published_lower_rate(lst, worst, rate: float, found: str) -> None:
    findings = worst(check_schedule, lst("LST.SOLVER_STEP.BASE_LR", rate))
    assert len(findings) == (2 if found else 0)
    for finding in findings:
        assert found in finding.text and finding.advice == "set LST.SOLVER_STEP.BASE_LR 0.005"


def test_adamw_has_rates_of_its_own(plain, the, worst) -> None:
    checkup = plain("SOLVER.OPTIMIZER", "ADAMW")
    assert "0.0001" in the(check_schedule, checkup, "warning", "AdamW with a rate of 0.01").advice
    assert worst(check_schedule, plain("SOLVER.OPTIMIZER", "ADAMW", RATE, 0.0002)) == []


def test_warm_up(plain, the) -> None:
    checkup = plain("SOLVER.WARMUP_ITERS", 500)
    assert the(check_schedule, checkup, "warning", "never becomes 0.01").advice.startswith(
        "set SOLVER.WARMUP_ITERS 2,"
    )
    assert the(check_schedule, checkup, "warning", "inside the warm-up")
    assert the(check_schedule, plain("SOLVER.WARMUP_ITERS", 0), "warning", "no warm-up")


def test_milestones(plain, the) -> None:
    finding = the(
        check_schedule, plain("SOLVER.STEPS", "(30, 40)"), "warning", "drops at [40] are never reached"
    )
    assert finding.advice == "set SOLVER.STEPS (26, 35)"
    assert the(check_schedule, plain("SOLVER.STEPS", "()"), "note", "never drops")
    assert the(check_schedule, plain("SOLVER.LR_SCHEDULER", "cosine"), "ok", "cosine from 0.01 to 0 in 40")


def test_epochs(plain, lst, the) -> None:
    usable = len(plain().datasets(plain().cfg)[0])
    assert the(check_schedule, plain(), "ok", f"160 samples are {160 / usable:.1f} epochs of {usable} usable")
    short = plain("SOLVER.MAX_ITER", 5, "SOLVER.STEPS", "(4,)")
    assert (
        "SOLVER.MAX_ITER to 6 or more" in the(check_schedule, short, "warning", "some are never seen").advice
    )
    # steps: 12 balanced epochs unless the user says otherwise
    found = [f.text for f in check_schedule(lst()) if "balanced epoch" in f.text]
    assert len(found) == 2 and all("12." in text for text in found)
    assert the(check_schedule, plain(quick=True), "note", "epochs are not computed")


def test_checkpoints_and_tests(plain, the) -> None:
    long = ("SOLVER.MAX_ITER", 9000, "SOLVER.STEPS", "(6000,)", "SOLVER.CHECKPOINT_PERIOD", 9000)
    assert the(check_schedule, plain(*long), "warning", "no checkpoint before the end").advice.endswith(
        " 450"
    )
    assert the(check_schedule, plain("SOLVER.TEST_PERIOD", 50), "note", "no test before the end")
    checkup = plain("SOLVER.TEST_PERIOD", 20, "DATASETS.TEST", "()")
    assert the(check_schedule, checkup, "warning", "tests every 20 iterations have no data")


def test_sound_schedules_have_no_problem(plain, lst, worst) -> None:
    assert worst(check_schedule, plain()) == worst(check_schedule, lst()) == []
