"""What each stage of a run does (lst spec 12.2); when it does it is decided in `scheduler`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.data.build import build_test_loader, build_train_loader
from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.data.datasets.images import image_name
from maskrcnn_benchmark.data.types import Batch, SampleKey
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.launch import process_device
from maskrcnn_benchmark.engine.nonfinite import NONFINITE_FILE
from maskrcnn_benchmark.engine.train import train
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model, fixed_limit
from maskrcnn_benchmark.evaluation.confusion import format_confusion
from maskrcnn_benchmark.evaluation.evaluator import DetectionEvaluator
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.distillation.dump import dump_store
from maskrcnn_benchmark.incremental.distillation.json_files import (
    check_complete,
    import_published,
    new_annotation_order,
)
from maskrcnn_benchmark.incremental.distillation.lookup import DistillLookup
from maskrcnn_benchmark.incremental.distillation.online import OnlineTeacher
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore
from maskrcnn_benchmark.incremental.growth.box_features import choose_boxes, collect_features
from maskrcnn_benchmark.incremental.growth.checkpoint import grow_checkpoint
from maskrcnn_benchmark.incremental.growth.classifier_init import new_rows
from maskrcnn_benchmark.incremental.pipeline.phase_config import (
    FINAL_WEIGHTS,
    GROWN_WEIGHTS,
    derive_phase_cfg,
    phase_folder,
    stored_size,
)
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData, base_batches, replay_batches
from maskrcnn_benchmark.incremental.plan.phases import PLAN_FILE, PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.split import (
    build_plan,
    check_sorted_ids,
    sorted_category_ids,
)
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan, build_replay_plan
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    format_phase_report,
    phase_confusion,
    report_groups,
    write_phase_report,
)
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process, on_main
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.rng import generator

logger = logging.getLogger(__name__)
REPLAY_FILE, DISTILL_FOLDER, REPORT_FOLDER, OLD_FOLDER = (
    "replay.json",
    "distill",
    "report",
    "previous",
)
_TRAINING_FILES = ("last_checkpoint", "model_*.pth", "metrics.jsonl", "tensorboard", NONFINITE_FILE)


@dataclass
class Work:
    """A run in progress.

    Attributes:
        cfg: the configuration the user wrote. run_dir: folder of the run. data: annotation files.
        file_hash: SHA-256 of a file (cached by the run state).
    """

    cfg: CfgNode
    run_dir: Path
    data: PhaseData
    file_hash: Callable[[Path], str]

    def folder(self, phase: int) -> Path:
        """Folder of a phase."""
        return phase_folder(self.run_dir, phase)

    def phase_cfg(self, plan: PhasePlan, phase: int) -> CfgNode:
        """Derived configuration of a phase."""
        return derive_phase_cfg(self.cfg, plan, phase, self.run_dir)


def load_plan(run_dir: Path, report_sizes: Sequence[int] = ()) -> PhasePlan:
    """The plan that `prepare` wrote; reports group its classes by `report_sizes` (none: by phase)."""
    return read_plan(run_dir / PLAN_FILE).with_report_sizes(report_sizes)


def make_plan(cfg: CfgNode, data: dict[str, Any]) -> PhasePlan:
    """The plan that node LST asks for with the training annotations `data`.

    Raises:
        UsageError: the sizes of the phases, or the class order of LST.SORTED_IDS, do not fit the categories.
    """
    lst = cfg.LST
    if lst.SORTED_IDS:
        ids = check_sorted_ids(read_json(lst.SORTED_IDS, what="class order"), data, lst.SORTED_IDS)
    else:
        ids = sorted_category_ids(data, lst.SORT_BY)
    step_size = lst.STEP_SIZE if isinstance(lst.STEP_SIZE, int) else list(lst.STEP_SIZE)
    return build_plan(data, ids, lst.BASE_SIZE, step_size).with_report_sizes(lst.REPORT_SIZES)


def prepare(work: Work) -> None:
    """Order the classes, divide them into phases, write classes.json and config.yml."""
    plan = make_plan(work.cfg, work.data.train.outline)
    for phase in range(plan.num_phases):
        # every phase's settings are checked before the first one trains
        work.phase_cfg(plan, phase)
    write_json(work.run_dir / PLAN_FILE, plan.to_json(), indent=1)
    save_config(work.cfg, work.run_dir / "config.yml")
    logger.info("%d classes in %d phases: %s", len(plan.classes), plan.num_phases, list(plan.sizes))


def dump(work: Work, plan: PhasePlan, phase: int) -> None:
    """Store the previous phase's cosines on the new boxes of `phase`; collective over ranks."""
    cfg, folder = work.phase_cfg(plan, phase), work.folder(phase) / DISTILL_FOLDER
    teacher_file = work.folder(phase - 1) / FINAL_WEIGHTS
    header = DistillHeader(
        phase=phase,
        num_old=plan.num_old(phase),
        classes_hash=plan.classes_hash(phase - 1),
        checkpoint=work.file_hash(teacher_file) if is_main_process() else "",
        input_size=stored_size(cfg),
        flips=tuple(cfg.LST.DISTILL.FLIPS),
        dtype=cfg.LST.DISTILL.DTYPE,
    )
    if cfg.LST.DISTILL.FILE:
        on_main(lambda: _import(work, plan, cfg.LST.DISTILL.FILE, folder, header))
        return
    teacher = _model_with_weights(work.phase_cfg(plan, phase - 1), teacher_file)
    dump_store(
        cfg,
        teacher,
        lambda flip: work.data.train_dataset(cfg, plan, flip),
        folder,
        header,
        shard_folder=work.folder(phase),
        what=f"phase {phase}: storing outputs",
    )


def _import(work: Work, plan: PhasePlan, file: str, folder: Path, header: DistillHeader) -> None:
    """Make the store from a published file."""
    order = new_annotation_order(work.data.train.outline, plan, header.phase)
    check_complete(import_published(file, folder, header, order), order)


def grow(work: Work, plan: PhasePlan, phase: int) -> None:
    """Write the start checkpoint of `phase` from the final one of the phase before.

    Collective over ranks where the new rows are made from training boxes (LST.GROW.INIT).
    """
    cfg = work.phase_cfg(plan, phase)
    from_data = cfg.LST.GROW.INIT != "normal"
    rows = _rows_from_data(work, plan, phase) if from_data else None

    def write() -> None:
        grow_checkpoint(
            work.folder(phase - 1) / FINAL_WEIGHTS,
            work.folder(phase) / GROWN_WEIGHTS,
            old_names=plan.names(phase - 1),
            new_names=plan.names(phase),
            cls_std=cfg.LST.GROW.CLS_STD,
            reg_std=cfg.LST.GROW.REG_STD,
            generator=generator(cfg.LST.SEED, "grow", phase),
            agnostic_boxes=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
            new_rows=rows,
        )

    if from_data:
        on_main(write)
    else:
        write()  # the stage is rank 0's alone


def _rows_from_data(work: Work, plan: PhasePlan, phase: int) -> dict[int, Tensor]:
    """Classifier rows of the new classes of `phase` by label, from boxes seen by the previous model."""
    cfg = work.phase_cfg(plan, phase)
    options, device = cfg.LST.GROW, process_device(cfg.MODEL.DEVICE)
    model = _model_with_weights(work.phase_cfg(plan, phase - 1), work.folder(phase - 1) / FINAL_WEIGHTS).to(
        device
    )
    labels = plan.new_labels(phase) if options.INIT == "feature_mean" else range(1, 1 + plan.num_seen(phase))
    annotations = work.data.train.outline["annotations"]
    boxes, images = choose_boxes(annotations, plan, labels, options.BOXES_PER_CLASS, cfg.LST.SEED)
    dataset = work.data.train_dataset(cfg, plan, flip=0)
    index = {image: i for i, image in enumerate(dataset.image_ids)}
    mine = [[SampleKey(index[image])] for image in images[get_rank() :: get_world_size()]]
    progress = Progress(len(mine), f"phase {phase}: reading boxes for new rows", logger)
    batches = build_train_loader(cfg, dataset, batches=mine)
    features = collect_features(model, batches, boxes, device=device, progress=progress)
    predictor: Any = model.get_submodule("roi_heads.box.predictor")
    source = generator(cfg.LST.SEED, "meta", phase)
    return on_main(lambda: new_rows(predictor, features, plan.new_labels(phase), cfg, source))


def replay(work: Work, plan: PhasePlan, phase: int) -> None:
    """Write the replay plan of `phase`."""
    result = _replay_plan(work, plan, phase)
    write_json(work.folder(phase) / REPLAY_FILE, result.to_json())
    logger.info(
        "phase %d: %d new pairs and %d replayed ones of %d old classes in an epoch, %d iterations",
        phase,
        len(result.new_pairs),
        sum(result.counts),
        sum(count > 0 for count in result.counts),
        work.phase_cfg(plan, phase).SOLVER.MAX_ITER,
    )


def _replay_plan(work: Work, plan: PhasePlan, phase: int) -> ReplayPlan:
    """The plan of a step from the training annotations."""
    options = work.phase_cfg(plan, phase).LST.REPLAY
    annotations = work.data.train.outline["annotations"]
    return build_replay_plan(annotations, plan, phase, minimum=options.MIN_PER_CLASS, replay=options.ENABLED)


def train_phase(work: Work, plan: PhasePlan, phase: int) -> None:
    """Train one phase into its folder, or go on where it was stopped; collective over ranks."""
    cfg, folder = work.phase_cfg(plan, phase), work.folder(phase)
    dataset = work.data.train_dataset(cfg, plan)
    teacher = _teacher_outputs(work, plan, phase) if cfg.MODEL.USE_DISTILL else None
    if phase == 0:
        batches = base_batches(cfg, dataset)
    else:
        plan_file = read_json(folder / REPLAY_FILE, what="replay plan")
        batches = replay_batches(cfg, dataset, ReplayPlan.from_json(plan_file))
    train(
        cfg,
        build_seeded_model(cfg),
        batches,
        output_dir=str(folder),
        max_iter=cfg.SOLVER.MAX_ITER,
        evaluate=lambda model, iteration: evaluate(work, cfg, plan, model, f"iteration {iteration}").metrics,
        distill=teacher,
        classes=plan.names(phase),
        extra_meta={"phase": phase, "label_to_category": [0, *plan.seen_ids(phase)]},
        image_name=lambda index: image_name(dataset.get_img_info(index)),
    )


def _teacher_outputs(work: Work, plan: PhasePlan, phase: int) -> Callable[[Batch], StoredLogits]:
    """Where training finds the teacher's outputs: in the store, or at the teacher itself."""
    cfg, num_old = work.phase_cfg(plan, phase), plan.num_old(phase)
    if cfg.LST.DISTILL.MODE == "file":
        return DistillLookup(DistillStore(work.folder(phase) / DISTILL_FOLDER), num_old)
    weights = work.folder(phase - 1) / FINAL_WEIGHTS
    teacher = _model_with_weights(work.phase_cfg(plan, phase - 1), weights)
    return OnlineTeacher(
        teacher.to(process_device(cfg.MODEL.DEVICE)), num_old, cfg.DATALOADER.SIZE_DIVISIBILITY
    )


def set_aside(work: Work, phase: int) -> None:
    """Move the training files of a phase into its folder `previous`, replacing an older set there.

    They are collected in a folder beside it first, so that a process killed here loses none of them: the next
    call completes the set.
    """
    folder = work.folder(phase)
    target, partial = folder / OLD_FOLDER, folder / f"{OLD_FOLDER}.partial"
    found = [path for pattern in _TRAINING_FILES for path in folder.glob(pattern)]
    if not found and not partial.exists():
        return
    partial.mkdir(parents=True, exist_ok=True)
    for path in found:
        os.replace(path, partial / path.name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    logger.warning("phase %d: training starts again; its earlier files are in %s", phase, target)


def evaluate(
    work: Work,
    cfg: CfgNode,
    plan: PhasePlan,
    model: nn.Module,
    what: str,
    dataset: DetectionDataset | None = None,
) -> EvaluationReport:
    """Evaluate a phase's model on its validation data (or `dataset`); collective over ranks."""
    dataset = dataset or work.data.val_dataset(cfg, plan)
    device = process_device(cfg.MODEL.DEVICE)
    evaluator = DetectionEvaluator(
        dataset.annotations.raw,
        work.data.val.kind,
        dataset.label_to_category,
        ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",),
        groups=report_groups(plan, cfg.LST.PHASE),
        shard_folder=work.folder(cfg.LST.PHASE),
        fixed_limit=fixed_limit(cfg),
    )
    loader = build_test_loader(cfg, dataset)
    name = f"phase {cfg.LST.PHASE}: testing {what}"
    return inference(
        model_for_testing(cfg, model.to(device)),
        loader,
        evaluator,
        device,
        name,
        precision=Precision.from_cfg(cfg, device),
    )


def report_phase(work: Work, plan: PhasePlan, phase: int) -> EvaluationReport:
    """Test the final model of a phase, write its report folder and log the tables; collective over ranks."""
    cfg, weights = work.phase_cfg(plan, phase), work.folder(phase) / FINAL_WEIGHTS
    dataset = work.data.val_dataset(cfg, plan)
    model = _model_with_weights(cfg, weights)
    result = evaluate(work, cfg, plan, model, FINAL_WEIGHTS, dataset)

    def write() -> None:
        details = {"checkpoint": work.file_hash(weights), "val_images": cfg.LST.VAL_IMAGES}
        confusion = phase_confusion(dataset.annotations.raw, result, plan, phase)
        folder = work.folder(phase) / REPORT_FOLDER
        write_phase_report(result, plan, phase, folder, confusion=confusion, details=details)
        logger.info("\n%s\n%s", format_phase_report(result, plan, phase), format_confusion(confusion))
        for task in result.tasks if phase else ():
            history = read_class_history(work.run_dir, plan, task, until=phase)
            logger.info("\nclasses that lost most %s AP:\n%s", task, format_losses(history))

    on_main(write)
    return result


def _model_with_weights(cfg: CfgNode, path: Path) -> GeneralizedRCNN:
    """The model of `cfg` with the weights of a checkpoint."""
    model = build_detection_model(cfg)
    load_weights(model, str(path), conv_body=cfg.MODEL.BACKBONE.CONV_BODY)
    return model
