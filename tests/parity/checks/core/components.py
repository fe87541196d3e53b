"""All component checks of a core folder, one table from section to function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from checks.checker import Checker
from checks.core import data as core_data
from checks.core import deform as core_deform
from checks.core import geometry as core_geometry
from checks.core import heads as core_heads
from checks.core import keypoints as core_keypoints
from checks.core import layers as core_layers
from checks.core import retinanet as core_retinanet
from checks.core import solver as core_solver
from checks.core import voc as core_voc
from checks.core.inputs import Components
from checks.noise_text import NoiseReader
from checks.store import read_pair

SECTIONS: dict[str, Callable[[Components, Checker], None]] = {
    "anchors": core_geometry.check_anchors,
    "boxlist": core_geometry.check_boxlist,
    "coder": core_geometry.check_coder,
    "matcher": core_geometry.check_matcher,
    "levels": core_geometry.check_levels,
    "roi": core_layers.check_roi,
    "nms": core_layers.check_nms,
    "smooth_l1": core_layers.check_smooth_l1,
    "focal": core_layers.check_focal,
    "masker": core_layers.check_masker,
    "mask_targets": core_layers.check_mask_targets,
    "dc": core_deform.check_deform_conv,
    "ps": core_deform.check_deform_psroi_pooling,
    "rpnp": core_heads.check_rpn_proposals,
    "rpn_loss": core_heads.check_rpn_loss,
    "bp": core_heads.check_box_postprocessing,
    "bl": core_heads.check_box_loss,
    "rn": core_retinanet.check_retinanet,
    "kp": core_keypoints.check_keypoints,
    "resize_table": core_data.check_resize_table,
    "pre": core_data.check_pixels,
    "image_list": core_data.check_image_list,
    "samplers": core_data.check_samplers,
    "distributed_sampler": core_data.check_distributed_sampler,
    "aspect_groups": core_data.check_aspect_groups,
    "lr": core_solver.check_lr,
    "optimizer": core_solver.check_optimizer,
    "c2_rename": core_solver.check_c2_rename,
    "suffix_match": core_solver.check_suffix_match,
    "voc": core_voc.check_voc,
}


def check_components(path: Path, checker: Checker) -> None:
    """Every section of `components.json` and `components.npz`."""
    info, arrays = read_pair(path)
    ctx = Components(path.parent, info["sections"], arrays, NoiseReader.of(info))
    sections = dict.fromkeys(name.split(".")[0] for name in [*arrays, *info["sections"]])
    for section in sections:
        if section in SECTIONS:
            with checker.section(section):
                SECTIONS[section](ctx, checker)
        else:
            checker.unsupported(section, "unknown section")
