"""Checks of deformable convolution and of deformable position-sensitive pooling."""

from __future__ import annotations

import re

from checks.checker import Checker
from checks.core.inputs import Components
from checks.fill import noise_tensor
from checks.noise_text import number
from maskrcnn_benchmark.layers.deform_conv import deform_conv2d
from maskrcnn_benchmark.layers.deform_psroi_pooling import deform_psroi_pooling

OFFSET_GAIN = 1.5


def check_deform_conv(ctx: Components, checker: Checker) -> None:
    """`v1|v2.s<stride>.d<dilation>`, padding = dilation, and `v1.groups2`."""
    info = ctx.info["dc"]
    x, weight = ctx.noise(info["x"]), ctx.noise(info["w"])
    for name in ctx.names("dc"):
        stored = ctx.arrays[f"dc.{name}"]
        height, width = stored.shape[-2:]
        if name == "v1.groups2":
            offset = OFFSET_GAIN * noise_tensor(ctx.noise.name("dc.og2"), (len(x), 36, height, width))
            checker.values(name, deform_conv2d(x, offset, weight, padding=1), stored)
            continue
        setting = re.fullmatch(r"v([12])\.s(\d)\.d(\d)", name)
        if setting is None:
            continue
        version, stride, dilation = (int(value) for value in setting.groups())
        values = {"stride": stride, "dilation": dilation, "h": height, "w": width}
        offset = ctx.noise(info["offset"], **values)
        mask = ctx.noise(info["mask"], **values) if version == 2 else None
        got = deform_conv2d(x, offset, weight, stride=stride, padding=dilation, dilation=dilation, mask=mask)
        checker.values(name, got, stored)


def check_deform_psroi_pooling(ctx: Components, checker: Checker) -> None:
    """`no_trans`, `trans` and `group2`."""
    info = ctx.info["ps"]
    x, trans, rois = ctx.noise(info["x"]), ctx.noise(info["trans"]), ctx.tensor("ps.rois")
    scale, samples = number(info["settings"], "scale"), number(info["settings"], "sample_per_part")
    std = number(info["trans"], "trans_std")
    for name in ctx.names("ps"):
        if name == "rois":
            continue
        stored = ctx.arrays[f"ps.{name}"]
        got = deform_psroi_pooling(
            x,
            rois,
            trans if name == "trans" else None,
            spatial_scale=scale,
            output_dim=stored.shape[1],
            pooled_size=stored.shape[2],
            group_size=2 if name == "group2" else 1,
            sample_per_part=int(samples),
            trans_std=std,
        )
        checker.values(name, got, stored)
