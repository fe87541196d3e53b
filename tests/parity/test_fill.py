"""Noise, images and weights that depend on names alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from checks.fill import fill_module, image, network_input, noise, value
from checks.noise_text import NoiseReader, number
from checks.published import settings_from_name
from checks.store import indexed, statistics, thin, unpack


def test_noise_depends_on_the_name_alone() -> None:
    first = noise("a", (3, 4))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, noise("a", (3, 4)))
    assert not np.array_equal(first, noise("b", (3, 4)))
    # CRC-32 of "a" seeds the legacy generator
    np.testing.assert_array_equal(
        first, np.random.RandomState(0xE8B7BE43).standard_normal((3, 4)).astype("f4")
    )


def test_image_is_made_of_squares() -> None:
    pixels = image("x", 20, 35)
    assert pixels.shape == (20, 35, 3)
    assert (pixels[:16, :16] == pixels[0, 0]).all()
    assert pixels.min() >= 0 and pixels.max() <= 255
    (tensor,) = network_input([{"name": "x", "height": 20, "width": 35}], [1.0, 2.0, 3.0], 57.0)
    assert tensor.shape == (3, 20, 35)
    np.testing.assert_allclose(tensor[2, 0, 0], (pixels[0, 0, 2] - 3) / 57, rtol=1e-6)


def test_values_by_kind() -> None:
    assert (value("bn.running_var", (50,)) >= 1).all()
    assert abs(value("bn.weight", (50,)).mean() - 0.5) < 0.05
    assert value("conv.bias", (50,)).std() < 0.2
    assert value("conv.weight", (64, 32, 3, 3)).std() == pytest.approx((2 / 288) ** 0.5, rel=0.05)


def test_fill_keeps_anchors_and_applies_gains() -> None:
    class Rpn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)
            self.register_buffer("anchor_generator_", torch.ones(2))

    model = nn.ModuleDict({"rpn": nn.ModuleDict({"head": Rpn()})})
    anchors = nn.ModuleDict({"cell_anchors": nn.BatchNorm1d(4)})
    model["rpn"]["anchor_generator"] = anchors
    before = {k: v.clone() for k, v in anchors.state_dict().items()}
    fill_module(model, gains={"rpn.head.conv.weight": 2.0})
    for key, tensor in anchors.state_dict().items():
        assert torch.equal(tensor, before[key])
    expected = 2 * value("rpn.head.conv.weight", (3, 2, 1, 1))
    np.testing.assert_allclose(model["rpn"]["head"].conv.weight.detach(), expected, rtol=1e-6)


def test_store_formats() -> None:
    array = np.arange(5001.0).reshape(3, 1667)
    assert thin(array, 2000).tolist() == list(range(0, 4000, 2))
    assert thin(np.arange(7), 2000).tolist() == list(range(7))
    assert statistics(np.array([1.0, -3.0])).tolist() == [-1.0, 2.0, 3.0]
    flags = np.random.default_rng(0).random((3, 5)) > 0.5
    np.testing.assert_array_equal(unpack(np.packbits(flags.reshape(-1)), (3, 5)), flags)
    arrays = {
        "det0.boxes": np.zeros(1),
        "det1.boxes": np.ones(1),
        "det3.boxes": np.ones(1),
        "gt0": np.ones(2),
    }
    assert len(indexed(arrays, "det{}.boxes")) == 2
    assert len(indexed(arrays, "gt")) == 1


def test_noise_in_words(tmp_path: object) -> None:
    read = NoiseReader("p/")
    plain = read("noise('p/x<i>',(2,9*5,h,w))-2, channel = anchor", i=3, h=4, w=5)
    np.testing.assert_allclose(plain, noise("p/x3", (2, 45, 4, 5)) - 2, rtol=1e-6)
    masks = read("sigmoid(2*noise('p/m',(2,1,3,3)))")
    np.testing.assert_allclose(masks, 1 / (1 + np.exp(-2 * noise("p/m", (2, 1, 3, 3)))), rtol=1e-5)
    with pytest.raises(ValueError, match="no noise"):
        read("nothing here")
    assert number("score > .05, nms .5", "score") == 0.05
    assert number("pre_nms 200, post_nms 80", ", post_nms") == 80
    with pytest.raises(ValueError, match="gives no"):
        number("score", "nms")


def test_settings_from_published_names() -> None:
    settings = settings_from_name("configs/gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml")
    assert settings is not None
    assert settings["MODEL.MASK_ON"] and settings["MODEL.FPN.USE_GN"]
    assert settings["MODEL.BACKBONE.CONV_BODY"] == "R-50-FPN"
    c4 = settings_from_name("configs/e2e_faster_rcnn_R_101_C4_1x.yaml")
    assert c4 is not None
    assert c4["MODEL.BACKBONE.CONV_BODY"] == "R-101-C4" and not c4["MODEL.MASK_ON"]
    assert "MODEL.RPN.USE_FPN" not in c4
    assert settings_from_name("configs/anything.yaml") is None
    assert settings_from_name("configs/e2e_faster_rcnn_fbnet.yaml") is None
