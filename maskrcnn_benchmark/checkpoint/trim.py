"""The parts of a two-stage detector's weights: their sizes, and a file without those that depend on classes.

A COCO checkpoint without its class layers is what LST starts from (Hu et al. 2020, section 4.1; the released
notebook trim_coco_pretrained_model.ipynb).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.checkpoint.matching import strip_module_prefix
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

# parity: what the released notebook removes.
CLASS_LAYERS = (
    "roi_heads.box.predictor.cls_score",
    "roi_heads.box.predictor.bbox_pred",
    "roi_heads.mask.predictor.mask_fcn_logits",
)
OTHER = "other"
PARTS = (
    "backbone.body",
    "backbone.fpn",
    "rpn",
    "roi_heads.box.feature_extractor",
    "roi_heads.mask.feature_extractor",
    "roi_heads.mask.predictor",
    *CLASS_LAYERS,
)
"""Parts of a two-stage detector; layers that depend on the classes are parts of their own."""


def part_sizes(state: Mapping[str, Tensor], parts: Sequence[str] = PARTS) -> dict[str, tuple[int, int]]:
    """Count (tensors, values) of every part that `state` holds, in the order of `parts`.

    A tensor (...,) belongs to the longest part that its name begins with, whole components only; what fits
    none is under "other". A prefix `module.` is ignored.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for name, tensor in strip_module_prefix(state).items():
        part = max((p for p in parts if name.startswith(f"{p}.")), key=len, default=OTHER)
        tensors, values = sizes.get(part, (0, 0))
        sizes[part] = tensors + 1, values + tensor.numel()
    return {part: sizes[part] for part in (*parts, OTHER) if part in sizes}


def trim_checkpoint(source: StrPath, target: StrPath, layers: tuple[str, ...] = CLASS_LAYERS) -> list[str]:
    """Write the weights of `source` without `layers`, and nothing else, to `target`.

    Optimizer, schedule and iteration are left out whether they are there or not; names keep a prefix
    `module.` if they have one. Without `layers` all weights stay, and the class list that the file carries.

    Returns:
        Names of the tensors that were removed.

    Raises:
        CheckpointError: for a Caffe2 file, and when none of `layers` is in the file.
    """
    if str(source).endswith(".pkl"):
        raise CheckpointError(f"{source} is a Caffe2 file; give it as MODEL.WEIGHT, it needs no trimming")
    content = read_checkpoint(source)
    state, classes = content["model"], ClassList.stored(content, str(source))
    removed = [n for n in state if n.removeprefix("module.").rpartition(".")[0] in layers]
    if layers and not removed:
        raise CheckpointError(
            f"{source} has none of the layers {', '.join(layers)}: it is trimmed already or no detector with "
            f"two stages; its names begin with {', '.join(list(state)[:3])}"
        )
    record = {} if layers or classes is None else classes.record()
    save_atomic({"model": {n: tensor for n, tensor in state.items() if n not in removed}, **record}, target)
    return removed
