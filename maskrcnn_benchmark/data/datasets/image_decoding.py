"""Decode an image file to 8-bit RGB: formats, sample depths, EXIF orientation, limit of pixels."""

from __future__ import annotations

import functools
import logging
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskrcnn_benchmark.utils.files import StrPath

logger = logging.getLogger(__name__)

_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
# Only what is decoded inside this process, from one file, into pixels. Left out: EPS (starts Ghostscript),
# WMF, containers of other files (IPTC, FPX, MIC), FITS (unbounded gzip), formats that Pillow only identifies.
# fmt: off
FORMATS = (
    *_COMMON, "TIFF", "WEBP", "MPO", "JPEG2000", "AVIF", "DIB", "ICO", "ICNS", "CUR", "DDS", "BLP", "FTEX",
    "IM", "MSP", "PCX", "DCX", "PIXAR", "PSD", "QOI", "SGI", "SPIDER", "SUN", "XBM", "XPM", "TGA",
)
# fmt: on
MAX_PIXELS = 178956970
"""Default of INPUT.MAX_PIXELS: where Pillow refuses an image as a decompression bomb."""

_LOCK = threading.Lock()
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_ORIENTATION, _BITS, _SAMPLE_FORMAT, _PHOTOMETRIC = 274, 258, 339, 262


class ImageError(ValueError):
    """Why a file gives no image, in one line without the name of the file."""


@dataclass(frozen=True)
class ImageOptions:
    """How image files become 8-bit RGB (keys of INPUT).

    depth_range: values (low, high) of one-channel images of more than 8 bits that become 0 and 255; () takes
        the range of their type (see `to_rgb`). exif: what an orientation tag does to an image with a record:
        "refuse", "apply" or "ignore". max_pixels: larger images are refused before they are decoded.
    """

    depth_range: tuple[float, ...] = ()
    exif: str = "refuse"
    max_pixels: int = MAX_PIXELS

    @classmethod
    def from_cfg(cls, cfg: Any) -> ImageOptions:
        """Read INPUT.DEPTH_RANGE, INPUT.EXIF and INPUT.MAX_PIXELS."""
        node = cfg.INPUT
        return cls(tuple(map(float, node.DEPTH_RANGE)), node.EXIF, node.MAX_PIXELS)


@dataclass(frozen=True)
class DecodedImage:
    """An RGB image as its file stores it, and the EXIF orientation (1 to 8, 1 = upright)."""

    stored: Image.Image
    orientation: int

    def upright(self) -> Image.Image:
        """Return the image flipped and rotated as its orientation says."""
        if self.orientation == 1:
            return self.stored
        return self.stored.transpose(_UPRIGHT[self.orientation])


def decode_image(file: StrPath | BinaryIO, options: ImageOptions) -> DecodedImage:
    """Decode an image file completely.

    Raises:
        ImageError: it is none of FORMATS, damaged or truncated, or has more than `max_pixels`. Whatever a
            decoder raises becomes one.
    """
    with _opened(file, options.max_pixels) as image:
        before = _tiff_orientation(image)
        rgb = to_rgb(image, options.depth_range)
        if before == 1:
            return DecodedImage(rgb, 1 if image.format == "TIFF" else _exif_orientation(image))
        # newer versions of Pillow rotate TIFF images while they load them, and drop the tag
        if _tiff_orientation(image) == 1:
            rgb = rgb.transpose(_STORED[before])
        return DecodedImage(rgb, before)


def read_samples(file: StrPath | BinaryIO, formats: Sequence[str] = ("PNG",)) -> np.ndarray:
    """Read the sample values of a label image as they are stored: (H, W), or (H, W, C) with C channels.

    Raises ImageError as `decode_image` does.
    """
    with _opened(file, MAX_PIXELS, formats) as image:
        return np.asarray(image)


@contextmanager
def _opened(
    file: StrPath | BinaryIO, max_pixels: int, formats: Sequence[str] = FORMATS
) -> Iterator[Image.Image]:
    """Context with an opened image whose size is checked; every error inside becomes an ImageError."""
    _silence_pillow()
    try:
        with _pillow_limit(max_pixels), _open(file, formats) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(_too_large(f"{image.width} x {image.height} pixels", max_pixels))
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large("too many pixels", max_pixels)) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"not an image of a known format, or damaged (read are {', '.join(formats)})"
        ) from None
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Exception as error:  # decoders raise nearly everything for damaged files
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(" ".join(reason.split())[:200] or type(error).__name__) from None


def _too_large(what: str, max_pixels: int) -> str:
    return f"{what}, more than INPUT.MAX_PIXELS {max_pixels}; raise it if the file is to be trusted"


def _open(file: StrPath | BinaryIO, formats: Sequence[str]) -> Image.Image:
    """Open with the plugins of the common formats, then with those of all `formats`."""
    Image.preinit()
    try:
        return Image.open(file, formats=[name for name in _COMMON if name in formats])
    except UnidentifiedImageError:
        Image.init()
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])


@contextmanager
def _raised_limit(max_pixels: int) -> Iterator[None]:
    """Context in which Pillow reads images of up to `max_pixels`; its limit is a variable of the process."""
    with _LOCK:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = math.ceil(max_pixels / 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _pillow_limit(max_pixels: int) -> Any:
    """Return `_raised_limit` where Pillow's own limit (twice MAX_IMAGE_PIXELS) is lower, else nothing."""
    limit = Image.MAX_IMAGE_PIXELS
    return nullcontext() if limit is None or max_pixels <= 2 * limit else _raised_limit(max_pixels)


def _silence_pillow() -> None:
    """Ignore Pillow's warnings (odd metadata, large images): what matters here is an error."""
    entry = warnings.filters[0] if warnings.filters else None
    if entry is None or entry[0] != "ignore" or getattr(entry[3], "pattern", "") != _PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)


_PILLOW = r"PIL\."


def to_rgb(image: Image.Image, depth_range: Sequence[float] = ()) -> Image.Image:
    """Convert an image of any mode to RGB with 8 bits per channel; transparency is dropped.

    One channel of more than 8 bits is scaled linearly: 16 bits by value >> 8, other integers likewise from
    0 .. the maximum of their type, floats from 0 .. 1; with `depth_range` from (low, high), rounded. Values
    outside are clipped, NaN becomes 0. Colour of 16 bits per channel keeps its high bytes.
    """
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_bytes(image, depth_range))
    elif image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def _to_bytes(image: Image.Image, depth_range: Sequence[float]) -> np.ndarray:
    """Scale the values of a one-channel image to uint8 (H, W)."""
    values = np.asarray(image)
    if image.mode == "F":
        result = _linear(values, *(depth_range or (0.0, 1.0)))
        if not depth_range and bool((values > 1).mean() > 0.5):
            _hint("float images hold values above 1, which become white")
    else:
        bits, signed = _integer_type(image)
        if bits == 32 and not signed:
            values = values.view(np.uint32)
        if depth_range:
            result = _linear(values, *depth_range)
        else:
            bits -= signed
            result = (np.clip(values, 0, 2**bits - 1) >> (bits - 8)).astype(np.uint8)
            if int(result.max()) < 16 <= int(values.max()):
                _hint(f"images of {bits + signed} bits per sample hold low values only, which become dark")
    return 255 - result if _white_is_zero(image) else result


def _linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low`..`high` to 0..255, rounded and clipped, a block of rows at a time."""
    result = np.empty(values.shape, np.uint8)
    rows = max(1, 2**20 // max(1, values.shape[1]))
    for top in range(0, len(values), rows):
        block = np.clip(values[top : top + rows].astype(np.float64), low, high)
        block = (block - low) * (255 / (high - low))
        result[top : top + rows] = np.rint(np.nan_to_num(block, copy=False, nan=0.0))
    return result


@functools.cache
def _hint(what: str) -> None:
    """Warn, once in a process, about values that the range of their type does not suit."""
    logger.warning('%s; INPUT.DEPTH_RANGE "(low, high)" says which values become black and white', what)


def _integer_type(image: Image.Image) -> tuple[int, bool]:
    """Return bits per sample, and whether they have a sign, of a one-channel image of integers."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits = _first(tags.get(_BITS, 16))
        return (bits if bits in (12, 16, 32) else 16), _first(tags.get(_SAMPLE_FORMAT, 1)) == 2
    # PPM and, with older versions of Pillow, PNG of 16 bits come as 32-bit integers
    return (16, False) if image.mode != "I" or image.format in ("PNG", "PPM") else (32, True)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF image counts from white to black (Pillow inverts those of 8 bits only)."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and _first(tags.get(_PHOTOMETRIC, 1)) == 0


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _tiff_orientation(image: Image.Image) -> int:
    """Orientation tag of a TIFF image; 1 for other formats."""
    return _valid(image.tag_v2.get(_ORIENTATION, 1)) if hasattr(image, "tag_v2") else 1


def _exif_orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation of a loaded image; metadata that cannot be read says nothing."""
    if not image.info:
        return 1
    try:
        return _valid(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata are not needed to use the pixels
        return 1


def _valid(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1
