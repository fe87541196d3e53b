"""One training iteration: forward, backward, reduction over ranks, clipping, optimizer, schedule."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from maskrcnn_benchmark.config.models import has_roi_heads
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.engine.finite_check import GRADIENT, MicroBatch, check_finite
from maskrcnn_benchmark.solver.clipping import GradientClipper
from maskrcnn_benchmark.solver.lr import LRSchedule
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.model_input import ModelInput, StoredLogits
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.rng import derive_seed, seed_all

_LOG = logging.getLogger(__name__)
_STOP = "stop"
# A smaller loss scale than this does not come from large losses: the gradient itself is not finite.
_MIN_SCALE = 2.0**-10


@dataclass
class StepResult:
    """Values of one iteration: losses are means over micro-batches and ranks, `loss` is their sum.

    `seconds` is the time of the whole iteration, `data_seconds` the part spent on waiting for batches.
    `grad_norm` is taken before clipping; `updated` is False when float16 overflow made the scaler skip
    the update; `stop` tells that some rank was asked to stop.
    """

    losses: dict[str, float]
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    data_seconds: float
    updated: bool
    stop: bool


def few_proposals(cfg: CfgNode) -> str:
    """A hint when images that share proposals get fewer than the box head samples, else "".

    parity: the images of one process share FPN_POST_NMS_TOP_N_TRAIN, two of them in the published runs.
    """
    rpn, images = cfg.MODEL.RPN, max(1, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
    shared = rpn.FPN_POST_NMS_PER_BATCH and len(rpn.ANCHOR_STRIDE) > 1 and has_roi_heads(cfg)
    each, sampled = rpn.FPN_POST_NMS_TOP_N_TRAIN // images, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    if not shared or each >= sampled:
        return ""
    return (
        f"MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN {rpn.FPN_POST_NMS_TOP_N_TRAIN} is shared by the {images} "
        f"images of a process: {each} proposals each, fewer than the {sampled} that "
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE samples. Set MODEL.RPN.FPN_POST_NMS_PER_BATCH False to count "
        "per image (published runs: 1000 per image)"
    )


def wrap_distributed(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` in DistributedDataParallel when the run has several processes, else `model` itself.

    Parameters and buffers of rank 0 are sent to all. Every trainable parameter takes part in every step
    (losses are connected to the graph also without ground truth), so unused ones need no search;
    `TrainStep` checks it.
    """
    if comm.get_world_size() == 1:
        return model
    # Frozen batch norm never changes its buffers, so they need no broadcast per step.
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


class TrainStep:
    """Callable that does one training iteration on `accumulation` batches.

    Anchors and proposals of an image are sampled with a generator seeded by (seed, its position in the
    training stream), so that they do not depend on the number of ranks. Other random numbers of a forward
    pass are seeded by (seed, global index of the micro-batch): micro-batch `m` of iteration `t` on rank `g`
    of `w` has the index `(t * accumulation + m) * w + g`. A run can be resumed at any iteration.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: LRSchedule,
        precision: Precision,
        clipper: GradientClipper,
        device: torch.device,
        seed: int,
        accumulation: int = 1,
        distill: Callable[[Batch], StoredLogits] | None = None,
    ) -> None:
        self.network = wrap_distributed(model, device)
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.clipper = clipper
        self.device = device
        self.seed = seed
        self.accumulation = accumulation
        self.distill = distill
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._checked_unused = False

    @classmethod
    def from_cfg(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: LRSchedule,
        precision: Precision,
        device: torch.device,
        distill: Callable[[Batch], StoredLogits] | None = None,
    ) -> TrainStep:
        """Clipping, accumulation and seed from the config; a warning when a batch has few proposals."""
        hint = few_proposals(cfg)
        if hint:
            _LOG.warning(hint)
        return cls(
            model,
            optimizer=optimizer,
            schedule=schedule,
            precision=precision,
            clipper=GradientClipper.from_cfg(cfg),
            device=device,
            seed=cfg.SEED,
            accumulation=cfg.SOLVER.ACCUMULATION_STEPS,
            distill=distill,
        )

    def _next_batch(self, batches: Iterator[Batch], iteration: int) -> Batch:
        try:
            return next(batches).to(self.device)
        except StopIteration:
            raise UsageError(
                f"the training data ended before iteration {iteration + 1}; the stream of batches must hold "
                "SOLVER.MAX_ITER * SOLVER.ACCUMULATION_STEPS batches"
            ) from None

    def _forward_backward(self, batch: Batch, index: int, *, last: bool) -> MicroBatch:
        """Add the gradients of one batch to the parameters; ranks reduce them after the `last` one."""
        seed_all(self.seed, "train", index)
        inputs = ModelInput(
            batch.images,
            batch.targets,
            seeds=[derive_seed(self.seed, "picture", i) for i in batch.stream_indices],
            query_classes=batch.query_classes,
            stored_logits=None if self.distill is None else self.distill(batch),
        )
        ddp = self.network if isinstance(self.network, DistributedDataParallel) else None
        with nullcontext() if ddp is None or last else ddp.no_sync():
            with self.precision.autocast():
                losses = self.network(inputs)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            self.precision.scaler.scale(total / self.accumulation).backward()
        return MicroBatch(
            {name: loss.detach() for name, loss in losses.items()}, list(batch.image_ids), list(batch.indices)
        )

    def _check_unused(self) -> None:
        """Check once that every trainable parameter has a gradient: ranks would train it differently."""
        if self._checked_unused:
            return
        self._checked_unused = True
        unused = [name for name, parameter in self._named if parameter.grad is None]
        if unused and comm.get_world_size() > 1:
            raise UsageError(
                f"{len(unused)} trainable parameters take no part in the losses ({', '.join(unused[:3])}): "
                "freeze them (requires_grad False); with several processes each must receive a gradient"
            )

    def _reduce(self, passes: list[MicroBatch], norm: Tensor, stop_requested: bool) -> dict[str, float]:
        """Mean losses, gradient norm and stop request, equal on all ranks, in one transfer."""
        means = {
            name: torch.stack([one.losses[name].float() for one in passes]).mean()
            for name in passes[0].losses
        }
        means[_STOP] = torch.tensor(float(stop_requested), device=self.device)
        reduced = comm.reduce_mean(means)
        values = torch.stack([*(reduced[name].float() for name in means), norm.detach().to(self.device)])
        return dict(zip([*means, GRADIENT], values.tolist(), strict=True))

    def __call__(
        self, iteration: int, batches: Iterator[Batch], stop_requested: Callable[[], bool] = lambda: False
    ) -> StepResult:
        """Run iteration `iteration` (from 0); `stop_requested` is asked after the backward pass.

        Raises NonFiniteError, before any weight changes, when a loss or the gradient is not finite (with loss
        scaling: when lowering the scale did not help); UsageError when `batches` ends.
        """
        self.optimizer.zero_grad(set_to_none=True)
        start = time.perf_counter()
        scaler, lr = self.precision.scaler, self.optimizer.param_groups[0]["lr"]
        passes: list[MicroBatch] = []
        data_seconds = 0.0
        for micro in range(self.accumulation):
            began = time.perf_counter()
            batch = self._next_batch(batches, iteration)
            data_seconds += time.perf_counter() - began
            index = (iteration * self.accumulation + micro) * comm.get_world_size() + comm.get_rank()
            passes.append(self._forward_backward(batch, index, last=micro == self.accumulation - 1))
        self._check_unused()
        scaler.unscale_(self.optimizer)
        norm = self.clipper(parameter for _, parameter in self._named)
        values = self._reduce(passes, norm, stop_requested())
        stop, grad_norm = values.pop(_STOP) > 0, values.pop(GRADIENT)
        scale = scaler.get_scale()
        scaling = scaler.is_enabled() and scale > _MIN_SCALE
        checked = values if scaling else {**values, GRADIENT: grad_norm}
        check_finite(checked, passes, iteration=iteration + 1, lr=lr)
        scaler.step(self.optimizer)
        scaler.update()
        self.schedule.step()
        return StepResult(
            losses=values,
            loss=sum(values.values()),
            grad_norm=grad_norm,
            lr=lr,
            seconds=time.perf_counter() - start,
            data_seconds=data_seconds,
            updated=scaler.get_scale() >= scale,
            stop=stop,
        )
