"""ResNet weights of torchvision (ImageNet classifiers).

Their names ("conv1", "layer1.0.bn2" ...) are tails of the names of the model's body. Their batch norm adds an
epsilon to the variance, ours does not (parity with the published files), so that it is added to the stored
variances. Such weights expect MODEL.RESNETS.STRIDE_IN_1X1 False and RGB images: INPUT.TO_BGR255 False,
PIXEL_MEAN [0.485, 0.456, 0.406], PIXEL_STD [0.229, 0.224, 0.225].
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

BATCH_NORM_EPSILON = 1e-5  # parity: the value torchvision trains with
_MARKS = ("conv1.weight", "bn1.running_var", "layer1.0.bn1.running_var")


def is_torchvision_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of a torchvision ResNet."""
    return all(name in state for name in _MARKS)


def import_torchvision_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The body's tensors with the epsilon in `running_var`, without classifier and batch counters."""
    result = {}
    for name, tensor in state.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        result[name] = tensor + BATCH_NORM_EPSILON if name.endswith("running_var") else tensor
    return result
