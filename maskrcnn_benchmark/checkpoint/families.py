"""What a weight file is, and its tensors under other names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from maskrcnn_benchmark.checkpoint.mmdet_sipmask import is_mmdet_sipmask
from maskrcnn_benchmark.checkpoint.torchvision_detection import is_torchvision_detection
from maskrcnn_benchmark.checkpoint.torchvision_resnet import is_torchvision_resnet
from maskrcnn_benchmark.utils.errors import CheckpointError

OURS = "maskrcnn-benchmark"
CAFFE2 = "Caffe2 / Detectron"
RESNET, DETECTION, FEATURES = "torchvision ResNet", "torchvision detector", "torchvision classifier"
MMDET = "mmdetection SipMask"
OTHER = "unknown"
_COUNTER = "num_batches_tracked"


def family_of(state: Mapping[str, Tensor], path: str = "") -> str:
    """One of OURS, CAFFE2, RESNET, DETECTION, MMDET, FEATURES, OTHER; names without a leading `module.`."""
    if path.endswith(".pkl"):
        return CAFFE2
    if is_torchvision_detection(state):
        return DETECTION
    if is_mmdet_sipmask(state):
        return MMDET
    if is_torchvision_resnet(state):
        return RESNET
    if any(name.startswith(("backbone.body.", "rpn.head.", "roi_heads.box.")) for name in state):
        return OURS
    if all(name.startswith(("features.", "classifier.")) for name in state):
        return FEATURES
    return OTHER


def by_order(
    state: Mapping[str, Tensor], targets: Mapping[str, Tensor], *, where: str = "the file"
) -> dict[str, Tensor]:
    """The first tensors of a file under the names of `targets`, paired by their order.

    For files of the same network under names of their own. Counters of batch norm are passed over on both
    sides, and so are tensors of the file behind the last target (a classifier).

    Raises:
        CheckpointError: naming the first pair whose shapes differ, or that the file ends too early.
    """
    names = [name for name in targets if not name.endswith(_COUNTER)]
    found = [name for name in state if not name.endswith(_COUNTER)]
    if len(found) < len(names):
        raise CheckpointError(
            f"{where} has {len(found)} tensors, the body {len(names)}; by order they must be the same network"
        )
    for name, other in zip(names, found, strict=False):
        wanted, given = tuple(targets[name].shape), tuple(state[other].shape)
        if wanted != given:
            raise CheckpointError(
                f"{where}: by order {other} {given} meets {name} {wanted}; the networks are not the same"
            )
    return {name: state[other] for name, other in zip(names, found, strict=False)}
