"""Actions before training: the plan of the run; for a step teacher outputs, start checkpoint, replay plan."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.data.build import build_train_loader
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.incremental.distillation.dump import dump_store
from maskrcnn_benchmark.incremental.distillation.json_files import (
    check_store_complete,
    import_logits,
    new_box_ids,
)
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader
from maskrcnn_benchmark.incremental.distillation.views import stored_size
from maskrcnn_benchmark.incremental.growth.box_features import collect_box_features, sample_boxes
from maskrcnn_benchmark.incremental.growth.checkpoint import grow_checkpoint
from maskrcnn_benchmark.incremental.growth.classifier_init import init_class_weights
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import (
    CONFIG_FILE,
    GROWN_WEIGHTS,
    PLAN_FILE,
    REPLAY_FILE,
    STORE_FOLDER,
)
from maskrcnn_benchmark.incremental.plan.split import plan_from_cfg
from maskrcnn_benchmark.incremental.replay.plan import build_replay_plan
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process, on_main
from maskrcnn_benchmark.utils.files import write_json
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.rng import generator

logger = logging.getLogger(__name__)


def prepare_run(run: RunContext) -> None:
    """Order the classes, divide them into phases, write classes.json and config.yml."""
    plan = plan_from_cfg(run.cfg, run.data.train.outline)
    for phase in range(plan.num_phases):
        # the settings of all phases are checked before the first one trains
        run.phase_cfg(plan, phase)
    write_json(run.run_dir / PLAN_FILE, plan.to_json(), indent=1)
    save_config(run.cfg, run.run_dir / CONFIG_FILE)
    logger.info("%d classes in %d phases: %s", len(plan.classes), plan.num_phases, list(plan.sizes))


def restore_config(cfg: CfgNode, path: Path) -> str:
    """Write a lost file of settings again; returns what was done, in words."""
    save_config(cfg, path)
    return "it is written again from the present settings"


def dump_teacher(run: RunContext, plan: PhasePlan, phase: int) -> None:
    """Store the previous phase's cosines on the new-class boxes of `phase`; collective over ranks."""
    cfg, folder = run.phase_cfg(plan, phase), run.folder(phase) / STORE_FOLDER
    header = DistillHeader(
        phase=phase,
        num_old=plan.num_old(phase),
        classes_hash=plan.classes_hash(phase - 1),
        checkpoint=run.file_hash(run.final_weights(phase - 1)) if is_main_process() else "",
        input_size=stored_size(cfg),
        flips=tuple(cfg.LST.DISTILL.FLIPS),
        dtype=cfg.LST.DISTILL.DTYPE,
    )
    if cfg.LST.DISTILL.FILE:
        on_main(lambda: _import_store(run, plan, cfg.LST.DISTILL.FILE, folder, header))
        return
    dump_store(
        cfg,
        run.load_final_model(plan, phase - 1),
        lambda flip: run.data.train_dataset(cfg, plan, flip),
        folder,
        header,
        shard_folder=run.folder(phase),
        what=f"phase {phase}: storing outputs",
    )


def _import_store(run: RunContext, plan: PhasePlan, file: str, folder: Path, header: DistillHeader) -> None:
    """Write the store `folder` from a released file."""
    phase = header.phase
    boxes = new_box_ids(run.data.train.outline, plan.seen_ids(phase), plan.num_old(phase))
    check_store_complete(import_logits(file, folder, header, boxes), boxes)


def grow_classifier(run: RunContext, plan: PhasePlan, phase: int) -> None:
    """Write the start checkpoint of `phase` from the final one of the phase before.

    Collective over ranks where new class weights come from training boxes (LST.GROW.INIT).
    """
    cfg = run.phase_cfg(plan, phase)
    from_data = cfg.LST.GROW.INIT != "normal"
    class_weights = _class_weights_from_data(run, plan, phase) if from_data else None

    def write() -> None:
        grow_checkpoint(
            run.final_weights(phase - 1),
            run.folder(phase) / GROWN_WEIGHTS,
            old_names=plan.names(phase - 1),
            new_names=plan.names(phase),
            cls_std=cfg.LST.GROW.CLS_STD,
            reg_std=cfg.LST.GROW.REG_STD,
            generator=generator(cfg.LST.SEED, "grow", phase),
            agnostic_boxes=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
            class_weights=class_weights,
        )

    if from_data:
        on_main(write)
    else:
        write()  # only rank 0 executes this stage


def _class_weights_from_data(run: RunContext, plan: PhasePlan, phase: int) -> dict[int, Tensor]:
    """Weights (D,) of the new classes of `phase` by label, from boxes under the previous phase's model."""
    cfg = run.phase_cfg(plan, phase)
    options, device = cfg.LST.GROW, rank_device(cfg.MODEL.DEVICE)
    model = run.load_final_model(plan, phase - 1).to(device)
    labels = plan.new_labels(phase) if options.INIT == "feature_mean" else range(1, 1 + plan.num_seen(phase))
    annotations = run.data.train.outline["annotations"]
    boxes, images = sample_boxes(annotations, plan, labels, options.BOXES_PER_CLASS, cfg.LST.SEED)
    dataset = run.data.train_dataset(cfg, plan, flip=0)
    index = {image: i for i, image in enumerate(dataset.image_ids)}
    rank_batches = [[SampleKey(index[image])] for image in images[get_rank() :: get_world_size()]]
    progress = Progress(len(rank_batches), f"phase {phase}: features for new class weights", logger)
    loader = build_train_loader(cfg, dataset, batches=rank_batches)
    features = collect_box_features(model, loader, boxes, device=device, progress=progress)
    predictor: Any = model.get_submodule("roi_heads.box.predictor")
    source = generator(cfg.LST.SEED, "meta", phase)
    return on_main(lambda: init_class_weights(predictor, features, plan.new_labels(phase), cfg, source))


def plan_replay(run: RunContext, plan: PhasePlan, phase: int) -> None:
    """Write the replay plan of `phase`."""
    cfg = run.phase_cfg(plan, phase)
    replay = build_replay_plan(
        run.data.train.outline["annotations"],
        plan,
        phase,
        minimum=cfg.LST.REPLAY.MIN_PER_CLASS,
        replay=cfg.LST.REPLAY.ENABLED,
    )
    write_json(run.folder(phase) / REPLAY_FILE, replay.to_json())
    logger.info(
        "phase %d: an epoch has %d new pairs and %d replayed ones of %d old classes; %d iterations",
        phase,
        len(replay.new_pairs),
        sum(replay.counts),
        sum(count > 0 for count in replay.counts),
        cfg.SOLVER.MAX_ITER,
    )
