"""A COCO checkpoint without the layers that depend on its classes: the start of an LST run (lst spec 8.1)."""

from __future__ import annotations

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

# parity: what the released notebook removes.
CLASS_LAYERS = (
    "roi_heads.box.predictor.cls_score",
    "roi_heads.box.predictor.bbox_pred",
    "roi_heads.mask.predictor.mask_fcn_logits",
)


def trim_checkpoint(source: StrPath, target: StrPath, layers: tuple[str, ...] = CLASS_LAYERS) -> list[str]:
    """Write the weights of `source` without `layers`, and nothing else, to `target`.

    Optimizer, schedule, iteration and class list are left out whether they are there or not; names keep a
    prefix `module.` if they have one. Without `layers` all weights stay.

    Returns:
        Names of the tensors that were removed.

    Raises:
        CheckpointError: for a Caffe2 file, and when none of `layers` is in the file.
    """
    if str(source).endswith(".pkl"):
        raise CheckpointError(f"{source} is a Caffe2 file; give it as MODEL.WEIGHT, it needs no trimming")
    state = read_checkpoint(source)["model"]
    removed = [n for n in state if n.removeprefix("module.").rpartition(".")[0] in layers]
    if layers and not removed:
        raise CheckpointError(
            f"{source} has none of the layers {', '.join(layers)}: it is trimmed already or no detector with "
            f"two stages; its names begin with {', '.join(list(state)[:3])}"
        )
    save_atomic({"model": {n: tensor for n, tensor in state.items() if n not in removed}}, target)
    return removed
