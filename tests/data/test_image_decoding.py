"""Image files become 8-bit RGB by stated rules: depths, palettes, EXIF orientation, limits, damaged files."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets import image_decoding
from maskrcnn_benchmark.data.datasets.image_decoding import (
    FORMATS,
    ImageError,
    ImageOptions,
    decode_image,
    to_rgb,
)
from maskrcnn_benchmark.data.datasets.images import read_record_image
from maskrcnn_benchmark.engine.frames import read_image_file
from maskrcnn_benchmark.utils.errors import DataError

BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP = BYTES.astype(np.uint16) * 257


def grey(image: Image.Image) -> np.ndarray:
    """The values of an RGB image whose channels are equal."""
    values = np.asarray(image)
    assert image.mode == "RGB" and (values == values[..., :1]).all()
    return values[..., 0]


def decoded(path: Path, *depth_range: float) -> np.ndarray:
    return grey(decode_image(path, ImageOptions(depth_range)).stored)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("g16.png", RAMP),
        ("g16.tif", RAMP),
        ("big.tif", RAMP.astype(">u2")),
        ("g16.pgm", RAMP),
        ("g16.jp2", RAMP),
        ("f32.tif", (RAMP / 65535).astype(np.float32)),
        ("i32.tif", RAMP.astype(np.int32) << 15),
    ],
)
def test_deep_images_are_scaled_linearly(tmp_path: Path, name: str, values: np.ndarray) -> None:
    """The highest 8 bits of integers, 0 .. 1 of floats: all 256 levels, in their places."""
    Image.fromarray(values).save(tmp_path / name)
    assert (decoded(tmp_path / name) == BYTES).all()


def test_types_of_tiff_images() -> None:
    """Unsigned 32 bits, signed 16 bits (half of the range), and images that count from white to black."""
    unsigned = _tiff((RAMP.astype("<u4") << 16).tobytes(), bits=32)
    assert (grey(decode_image(io.BytesIO(unsigned), ImageOptions()).stored) == BYTES).all()
    signed = _tiff((RAMP >> 1).astype("<i2").tobytes(), bits=16, sample_format=2)
    assert (grey(decode_image(io.BytesIO(signed), ImageOptions()).stored) == BYTES).all()
    negative = _tiff(np.full(256, -5, "<i2").tobytes(), bits=16, sample_format=2)
    assert (grey(decode_image(io.BytesIO(negative), ImageOptions()).stored) == 0).all()
    inverted = _tiff(RAMP.astype("<u2").tobytes(), bits=16, photometric=0)
    assert (grey(decode_image(io.BytesIO(inverted), ImageOptions()).stored) == 255 - BYTES).all()


def _tiff(data: bytes, bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed little-endian TIFF file of 16 x 16 samples."""
    tags = [
        (256, 3, 16),
        (257, 3, 16),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 16),
        (279, 4, len(data)),
        (339, 3, sample_format),
    ]
    head = b"II*\0" + (8 + len(data)).to_bytes(4, "little")
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + b"\1\0\0\0" + value.to_bytes(4, "little")
        for tag, kind, value in tags
    )
    return head + data + len(tags).to_bytes(2, "little") + entries + b"\0\0\0\0"


def test_twelve_bits() -> None:
    samples = BYTES.astype(np.uint16).reshape(-1) * 16 + 15
    first, second = samples[::2], samples[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
    image = decode_image(io.BytesIO(_tiff(packed.tobytes(), bits=12)), ImageOptions())
    assert (grey(image.stored) == BYTES).all()


def test_depth_range(tmp_path: Path) -> None:
    """Linear between the two values, rounded, clipped outside; 8-bit images do not change."""
    values = np.array([[0, 99, 100, 101, 355, 356, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png", 100, 355).tolist() == [[0, 0, 0, 1, 255, 255, 255]]
    floats = np.array([[-np.inf, -1, 0, 1, 3, np.inf, np.nan]], np.float32)
    Image.fromarray(floats).save(tmp_path / "f.tif")
    assert decoded(tmp_path / "f.tif", -1, 3).tolist() == [[0, 0, 64, 128, 255, 255, 0]]
    assert decoded(tmp_path / "f.tif").tolist() == [[0, 0, 0, 255, 255, 255, 0]]
    Image.fromarray(BYTES).save(tmp_path / "b.png")
    assert (decoded(tmp_path / "b.png", 100, 355) == BYTES).all()


def test_values_far_from_the_range_are_pointed_at(caplog: pytest.LogCaptureFixture) -> None:
    image_decoding._hint.cache_clear()
    to_rgb(Image.fromarray(np.full((4, 4), 200, np.float32)))
    to_rgb(Image.fromarray(np.full((4, 4), 4000, np.uint16)))
    assert "float images hold values above 1" in caplog.text and "hold low values only" in caplog.text
    assert caplog.text.count("INPUT.DEPTH_RANGE") == 2


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "RGBa", "La"]
)
def test_images_of_8_bits_are_what_pillow_makes_of_them(mode: str) -> None:
    source = Image.fromarray(BYTES).convert("RGB")
    through = {"PA": "P", "RGBa": "RGBA", "La": "LA"}.get(mode)
    image = (source.convert(through) if through else source).convert(mode)
    plain = image.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, mode)).convert("RGB")
    assert to_rgb(image).tobytes() == plain.tobytes()


def test_transparent_palettes_lose_their_transparency_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(BYTES).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decoded(tmp_path / "a.png") == BYTES).all()


CORNER = np.full((20, 30, 3), 40, np.uint8)
CORNER[2:6, 3:13] = (220, 60, 60)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("tag", list(TURNS))
def test_orientation(tmp_path: Path, tag: int, suffix: str) -> None:
    """apply and predict: as viewers show it; ignore: as stored; refuse: where the record does not tell."""
    path = tmp_path / f"a.{suffix}"
    stored = np.ascontiguousarray(TURNS[tag](CORNER))
    exif = Image.Exif()
    exif[0x0112] = tag
    options: dict[str, Any] = {
        "png": {},
        "tif": {},
        "webp": {"lossless": True},
        "jpg": {"quality": 100, "subsampling": 0},
    }[suffix]
    Image.fromarray(stored).save(path, exif=exif, **options)

    def close(image: Image.Image, expected: np.ndarray) -> bool:
        values = np.asarray(image, int)
        return values.shape == expected.shape and abs(values - expected).mean() < (
            2 if suffix == "jpg" else 0.01
        )

    assert close(read_image_file(path), CORNER)
    shown = {"id": 7, "file_name": path.name, "width": 30, "height": 20}
    kept = {"id": 7, "file_name": path.name, "width": stored.shape[1], "height": stored.shape[0]}

    def read(record: dict[str, Any], exif: str) -> Image.Image:
        return read_record_image(str(tmp_path), record, ImageOptions(exif=exif))

    assert close(read(shown, "apply"), CORNER)
    assert close(read(kept, "ignore"), stored)
    if tag == 1:
        assert close(read(shown, "refuse"), CORNER)
        return
    with pytest.raises(DataError, match=rf"image 7: .*EXIF orientation {tag} .*INPUT.EXIF apply"):
        read(shown, "refuse")
    if tag >= 5:
        assert close(read(kept, "refuse"), stored)
        with pytest.raises(DataError, match="is 30 x 20, its record says 20 x 30; its EXIF orientation is"):
            read(kept, "apply")


def test_square_images_are_refused_with_any_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(DataError, match="is not stored as it is shown; its EXIF orientation 6"):
        read_record_image(str(tmp_path), {"id": 1, "file_name": "a.jpg", "width": 8, "height": 8})


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"])
def test_metadata_that_cannot_be_read_say_nothing(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.jpg", exif=exif)
    assert decoded(tmp_path / "a.jpg").shape == (8, 8)


@pytest.mark.parametrize("suffix", ["jpg", "eps", "png"])
def test_no_program_is_started_for_a_file(tmp_path: Path, monkeypatch: Any, suffix: str) -> None:
    """An EPS file makes Pillow start Ghostscript; here it is no image, whatever its name."""
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / f"a.{suffix}").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 40\n%%EndComments\nshowpage\n%%EOF\n"
    )
    record = {"id": 1, "file_name": f"a.{suffix}", "width": 50, "height": 40}
    with pytest.raises(DataError, match="image 1 cannot be read: .*not an image of a known format"):
        read_record_image(str(tmp_path), record)
    assert not started.exists()


def test_formats() -> None:
    assert not {"EPS", "WMF", "PDF", "IPTC", "FPX", "MIC", "GRIB", "BUFR", "HDF5", "MPEG"} & set(FORMATS)


def test_limit_of_pixels(tmp_path: Path) -> None:
    """Checked before anything is decoded; above Pillow's own limit it counts too, and Pillow's comes back."""
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"cannot be read: 400 x 300 pixels, more than INPUT.MAX_PIXELS 119999"
    ):
        read_image_file(tmp_path / "a.png", ImageOptions(max_pixels=119_999))
    assert read_image_file(tmp_path / "a.png", ImageOptions(max_pixels=120_000)).size == (400, 300)
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = 50_000
        with pytest.raises(DataError, match="more than INPUT.MAX_PIXELS 100000"):
            read_image_file(tmp_path / "a.png", ImageOptions(max_pixels=100_000))
        assert read_image_file(tmp_path / "a.png", ImageOptions(max_pixels=120_000)).size == (400, 300)
        assert Image.MAX_IMAGE_PIXELS == 50_000
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    """A header of 60000 x 60000 pixels."""
    header = bytearray(_png())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageError, match="more than INPUT.MAX_PIXELS"):
        decode_image(io.BytesIO(bytes(header)), ImageOptions())


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(BYTES).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("x"),
        RuntimeError("two\nlines"),
        KeyError("x"),
        MemoryError(),
        Image.DecompressionBombError("x"),
        AssertionError(),
        OverflowError("x"),
        EOFError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_names_the_image(
    tmp_path: Path, monkeypatch: Any, error: Exception
) -> None:
    (tmp_path / "a.png").write_bytes(_png())

    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    record = {"id": 5, "file_name": "a.png", "width": 16, "height": 16}
    with pytest.raises(DataError, match=r"image 5 cannot be read: .*a\.png: .+BAD_IMAGE skip") as caught:
        read_record_image(str(tmp_path), record)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read_image_file(tmp_path / "a.png")


def test_damaged_files_of_many_formats(tmp_path: Path) -> None:
    """Cut and changed files give an image or an ImageError, nothing else."""
    generator = np.random.default_rng(0)
    source = Image.fromarray(generator.integers(0, 255, (24, 20, 3), np.uint8))
    read = refused = 0
    for name in FORMATS:
        Image.init()
        if name not in Image.SAVE:
            continue
        file = io.BytesIO()
        try:
            source.convert("1" if name in ("MSP", "XBM") else "F" if name == "SPIDER" else "RGB").save(
                file, name
            )
        except (OSError, KeyError, ValueError):
            continue
        data = file.getvalue()
        assert decode_image(io.BytesIO(data), ImageOptions()).stored.mode == "RGB", name
        for _ in range(6):
            changed = bytearray(data[: int(generator.integers(1, len(data) + 1))])
            for position in generator.integers(0, len(changed), 3):
                changed[position] ^= int(generator.integers(1, 256))
            try:
                decode_image(io.BytesIO(bytes(changed)), ImageOptions(max_pixels=10**6))
                read += 1
            except ImageError as error:
                refused += 1
                assert "\n" not in str(error)
    assert read + refused > 90 and refused > 20
