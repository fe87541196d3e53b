"""Images in folders, inside zip and tar files, and at URLs: read, looked for, used by worker processes."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.image_files import check_images
from maskrcnn_benchmark.data.datasets.image_sources import open_image_source
from maskrcnn_benchmark.data.datasets.images import ImageReader
from maskrcnn_benchmark.data.types import collate
from maskrcnn_benchmark.utils.errors import DataError

Make = Callable[..., DetectionDataset]
NAMES = [f"{i:03d}.png" for i in range(8)]


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def records() -> list[dict[str, Any]]:
    return [{"id": i, "file_name": name, "width": 6, "height": 5} for i, name in enumerate(NAMES)]


@pytest.fixture(params=["folder", "zip", "stored zip", "tar", "inner zip", "inner tar", "memory", "chained"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that holds all images but the last, below the folder train2017 (archives), and other files."""
    files = {f"train2017/{name}": png(10 * i) for i, name in enumerate(NAMES[:-1])}
    kind = request.param
    if kind == "folder":
        (tmp_path / "train2017").mkdir()
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        return str(tmp_path / "train2017")
    if kind == "memory":
        system = fsspec.filesystem("memory")
        system.pipe({f"/{tmp_path.name}/{name}": data for name, data in files.items()})
        return f"memory://{tmp_path.name}/train2017"
    if kind.startswith("inner"):
        files["val2017/000.png"] = png(200)
    path = tmp_path / f"images.{'tar' if 'tar' in kind else 'zip'}"
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        method = zipfile.ZIP_STORED if kind == "stored zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
    if kind == "chained":
        return f"zip://train2017::{path}"
    return f"{path}/train2017" if kind.startswith("inner") else str(path)


def values(reader: ImageReader) -> list[int]:
    return [reader.read(record).getpixel((0, 0))[0] for record in records()[:-1]]  # type: ignore[index]


def test_images_of_all_places(place: str) -> None:
    reader = ImageReader(place)
    assert values(reader) == [0, 10, 20, 30, 40, 50, 60]
    assert [record["id"] for record in reader.missing(records())] == [7]
    assert [reader.exists(record) for record in records()] == [True] * 7 + [False]
    with pytest.raises(DataError, match=r"image 7 is missing: no file .*007\.png.*; check the image folder"):
        reader.read(records()[7])
    assert values(pickle.loads(pickle.dumps(reader))) == values(reader)


def test_other_processes_read_too(place: str) -> None:
    """Forked ones share handles while this one reads; spawned ones open their own."""
    reader = ImageReader(place)
    values(reader)
    for method in ("fork", *(() if place.startswith("memory") else ("spawn",))):
        with get_context(method).Pool(2) as pool:
            read = pool.map_async(reader.read, records()[:-1] * 4, chunksize=1)
            assert values(reader) == [0, 10, 20, 30, 40, 50, 60]
            assert [image.getpixel((0, 0))[0] for image in read.get(60)] == values(reader) * 4


def test_training_images_in_an_archive(make: Make, raw: dict[str, Any], tmp_path: Path) -> None:
    plain = make(raw)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (*tmp_path.glob("*.jpg"), *tmp_path.glob("*.png")):
            archive.write(path, f"inner/{path.name}")
    zipped = DetectionDataset(
        plain.annotations, str(tmp_path / "all.zip"), transforms=plain.transforms, train=True
    )
    batches = DataLoader(
        zipped,  # type: ignore[arg-type]
        batch_size=1,
        num_workers=2,
        collate_fn=lambda samples: collate(samples, 0),
    )
    for expected, batch in zip(plain, batches, strict=False):
        assert torch.equal(batch.images.tensors[0], expected.image)


def test_names_of_other_records(tmp_path: Path) -> None:
    """COCO 2014 names and the URLs of LVIS v1 are found in archives as in folders."""
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
        archive.writestr("train2017/000000000009.png", png(3))
        archive.writestr("val2017/000000000010.png", png(4))
    reader = ImageReader(str(tmp_path / "coco.zip"))
    url = {"id": 1, "coco_url": "http://x.org/train2017/000000000009.png", "width": 6, "height": 5}
    assert reader.read(url).getpixel((0, 0)) == (3, 3, 3)
    old = {"id": 2, "file_name": "COCO_val2014_000000000010.png", "width": 6, "height": 5}
    assert ImageReader(str(tmp_path / "coco.zip/val2017")).read(old).getpixel((0, 0)) == (4, 4, 4)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("notes.txt", r"notes.txt is no folder of images, zip file or uncompressed tar file"),
        ("images.tar.gz", r"images.tar.gz is no folder of images"),
        ("broken.zip", r"broken.zip is no folder of images|broken.zip cannot be read as zip"),
        ("broken.tar", r"broken.tar cannot be read as tar file: .*"),
        ("good.zip/other", r"good.zip has no folder other; its first file is a/b.png"),
        ("nothing://bucket/x", r"image folder nothing://bucket/x cannot be opened: .*nothing"),
    ],
)
def test_places_that_are_none(tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4" + bytes(50))
    (tmp_path / "broken.tar").write_bytes(b"x" * 1024)
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "notes.txt", "a.txt")
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as zipped:
        zipped.writestr("a/b.png", png(1))
    with pytest.raises(DataError, match=message) as error:
        ImageReader(location if "://" in location else str(tmp_path / location))
    assert "\n" not in str(error.value)


def test_damaged_members(tmp_path: Path) -> None:
    """A flipped bit in a stored member is noticed by its checksum; a tar file that ends early is named."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(NAMES[0], png(1))
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="image 0 cannot be read: .*Bad CRC-32"):
        ImageReader(str(path)).read(records()[0])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo(NAMES[0])
        member.size = 5000
        archive.addfile(member, io.BytesIO(bytes(5000)))
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1024])
    with pytest.raises(DataError, match=r"a\.tar"):
        ImageReader(str(tmp_path / "a.tar")).read(records()[0])


def test_a_zip_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn_benchmark.data.datasets.image_sources._MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(NAMES[0], bytes(2 << 20))
    with pytest.raises(DataError, match="image 0 cannot be read: .*a file of more than"):
        ImageReader(str(tmp_path / "a.zip")).read(records()[0])


def test_lists_are_checked_in_all_places(place: str) -> None:
    """The check before training names the file in the archive or the URL."""
    check_images(place, records()[:-1], "a.json")
    with pytest.raises(DataError, match=r"image 7 is missing: no file .*007\.png.*; 1 of 8 images of a.json"):
        check_images(place, records(), "a.json")


def test_folders_that_do_not_exist_hold_nothing(tmp_path: Path) -> None:
    source = open_image_source(str(tmp_path / "none"))
    assert not source.is_there() and source.missing([["a.jpg"]]) == [0]
    assert open_image_source(f"file://{tmp_path}").is_there()


def test_servers_without_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images are looked for one by one."""
    fsspec.filesystem("memory").pipe({f"/{tmp_path.name}/{name}": png(1) for name in NAMES[:-1]})
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", lambda *a, **k: 1 / 0)
    reader = ImageReader(f"memory://{tmp_path.name}")
    assert [record["id"] for record in reader.missing(records())] == [7]
