"""The reference files of FCOS and SipMask, and what checks them; files other than lists of shapes may have
any name.
"""

from __future__ import annotations

from checks.files import FileKind
from checks.sipmask.losses import check_losses
from checks.sipmask.models import check_model
from checks.sipmask.ops import check_ops
from checks.sipmask.shapes import check_shapes
from checks.sipmask.targets import check_targets

KINDS = (
    FileKind(check_shapes, pattern="shapes_*.json"),
    FileKind(check_ops, keys=frozenset({"crop_split", "deform_conv"})),
    FileKind(check_targets, keys=frozenset({"boxes_xyxy", "labels", "level_sizes_hw"})),
    FileKind(check_losses, keys=frozenset({"inputs", "variants", "level_sizes_hw"})),
    FileKind(check_model, keys=frozenset({"config", "images", "batch_shape", "arrays", "train"})),
)
