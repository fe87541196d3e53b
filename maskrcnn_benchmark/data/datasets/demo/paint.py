"""Pixels of the demo images: backgrounds, textures, outlines with soft edges."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLE = 4


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Render a pale cloudy surface with faint waves, (size, size, 3) float32 in 0..1."""
    base = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.0, 0.25), rng.uniform(0.35, 0.7)))
    clouds = rng.uniform(-1, 1, (6, 6)).astype(np.float32)
    cloud = np.array(Image.fromarray(clouds).resize((size, size), Image.Resampling.BICUBIC))
    angle, period = rng.uniform(0, math.pi), size * rng.uniform(0.05, 0.25)
    ys, xs = np.mgrid[0:size, 0:size]
    waves = np.sin(
        (xs * math.cos(angle) + ys * math.sin(angle)) * 2 * math.pi / period + rng.uniform(0, 6.28)
    )
    light = 0.10 * cloud + rng.uniform(0.0, 0.03) * waves
    return np.clip(base + light[..., None], 0, 1).astype(np.float32)


def coverage(polygon: np.ndarray, size: int) -> np.ndarray:
    """Fraction of every pixel inside a polygon (K, 2), (size, size) float32."""
    canvas = Image.new("L", (size * SUPERSAMPLE, size * SUPERSAMPLE))
    corners = [(x * SUPERSAMPLE - 0.5, y * SUPERSAMPLE - 0.5) for x, y in polygon.tolist()]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.array(canvas.reduce(SUPERSAMPLE), dtype=np.float32) / 255


def surface(
    texture: str,
    hue: float,
    radius: float,
    angle: float,
    centre: tuple[float, float],
    size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Render the texture of one object, rotated by `angle` about `centre`, (size, size, 3) float32 in 0..1.

    Colours vary about `hue`; the pattern mixes a light and a dark tone of it.
    """
    tone = (hue + rng.uniform(-0.035, 0.035)) % 1.0
    saturation, value = rng.uniform(0.6, 0.95), rng.uniform(0.75, 1.0)
    light = np.array(colorsys.hsv_to_rgb(tone, saturation, value))
    dark = np.array(colorsys.hsv_to_rgb(tone, min(1.0, saturation + 0.1), value * rng.uniform(0.3, 0.45)))
    ys, xs = np.mgrid[0:size, 0:size]
    cos, sin = math.cos(angle), math.sin(angle)
    u = (xs + 0.5 - centre[0]) * cos + (ys + 0.5 - centre[1]) * sin
    v = (ys + 0.5 - centre[1]) * cos - (xs + 0.5 - centre[0]) * sin
    period = max(5.0, radius * rng.uniform(0.42, 0.55))
    amount = _pattern(texture, u / period + rng.uniform(), v / period + rng.uniform(), period)
    shade = 1 + rng.uniform(-0.15, 0.15) * (u / radius)
    return np.clip((light + (dark - light) * amount[..., None]) * shade[..., None], 0, 1).astype(np.float32)


def finish(canvas: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Add noise to a canvas (H, W, 3) in 0..1 and convert it to a PIL RGB image."""
    noisy = canvas + rng.normal(0, rng.uniform(0.01, 0.035), canvas.shape)
    return Image.fromarray((np.clip(noisy, 0, 1) * 255).round().astype(np.uint8))


def _pattern(texture: str, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    """Weight of the dark tone, 0..1, at pattern coordinates (u, v); edges are about one pixel wide."""
    if texture == "plain":
        return np.zeros_like(u)
    waves_u, waves_v = np.cos(2 * math.pi * u), np.cos(2 * math.pi * v)
    if texture == "striped":
        field = waves_u
    elif texture == "dotted":
        field = waves_u + waves_v - 0.6
    else:
        field = waves_u * waves_v * 1.5
    return np.clip(0.5 + field * period / (2 * math.pi), 0, 1)
