"""Reading training images: milliseconds per image of every stage and of the whole loader.

The peer is the usual torchvision pipeline on the same files: Pillow, pycocotools' bitmaps of all objects,
transforms.v2 (resize of image and bitmaps, flip, normalise), and for the mask targets the RoIAlign of
the bitmaps that torchvision's Mask R-CNN does. Images are 640x480 JPEG, resized to 800x1066.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from timing import median_ms
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.transforms import v2

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.build import build_dataset, build_train_loader
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.images import read_record_image
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_targets

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml"
WIDTH, HEIGHT, OBJECTS, POINTS, POSITIVES = 640, 480, 12, 28, 128


def write_images(folder: Path, count: int) -> None:
    """`count` noisy JPEG images with star-shaped objects, COCO annotations in ann.json."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, count + 1):
        coarse = rng.integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=92)
        images.append({"id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"{number}.jpg"})
        for _ in range(OBJECTS):
            radius = rng.uniform(20, 110, 2)
            centre = rng.uniform(radius, np.array([WIDTH, HEIGHT]) - radius)
            angle = np.sort(rng.uniform(0, 2 * np.pi, POINTS))
            outline = centre + radius * np.c_[np.cos(angle), np.sin(angle)]
            low, size = outline.min(0), np.ptp(outline, axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 81)),
                    "segmentation": [outline.round(2).ravel().tolist()],
                    "bbox": [*low.tolist(), *size.tolist()],
                    "area": float(size.prod()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "ann.json").write_text(json.dumps(content))


class PeerDataset(Dataset):
    """Images with boxes, labels and bitmaps of all objects, as torchvision's models take them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(folder / "ann.json"))
        self.ids = sorted(self.coco.imgs)
        self.transforms = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomHorizontalFlip(0.5),
                v2.Resize(800, max_size=1333, antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def decode(self, index: int) -> Image.Image:
        """The image as Pillow RGB."""
        name = self.coco.imgs[self.ids[index]]["file_name"]
        return Image.open(self.folder / name).convert("RGB")

    def target(self, index: int) -> dict[str, Any]:
        """Boxes, labels and bitmaps before the transforms."""
        anns = self.coco.imgToAnns[self.ids[index]]
        boxes = torch.tensor([a["bbox"] for a in anns])
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.from_numpy(np.stack([self.coco.annToMask(a) for a in anns]))
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH)),  # type: ignore[call-overload]
            "labels": torch.tensor([a["category_id"] for a in anns]),
            "masks": tv_tensors.Mask(masks),
        }

    def __getitem__(self, index: int) -> Any:
        """A transformed image and its target."""
        return self.transforms(self.decode(index), self.target(index))


def _row(case: str, times: list[float], count: int) -> dict[str, Any]:
    """The row of a stage: milliseconds per image of ours and the peer."""
    ours, peer = (t / count for t in times)
    return {
        "case": case,
        "ours_ms": round(ours, 2),
        "peer_ms": round(peer, 2),
        "ratio": round(ours / peer, 3),
        "ours_per_s": round(1000 / ours, 1),
    }


def _each(count: int, call: Callable[[int], object]) -> Callable[[], object]:
    """A call of `call` for every image index below `count`."""

    def run() -> object:
        for index in range(count):
            call(index)
        return None

    return run


def _targets(dataset: DetectionDataset, peer: PeerDataset) -> list[Callable[[], object]]:
    """Calls that make mask targets (28x28) of 128 positives of one image: from polygons, from bitmaps."""
    source = torch.Generator().manual_seed(0)
    target = dataset[SampleKey(0)].target
    index = torch.randint(0, len(target), (POSITIVES,), generator=source)
    positives = target[index]
    positives.bbox = positives.bbox + 8 * torch.rand(POSITIVES, 4, generator=source)
    positives.add_field("matched_idxs", index)
    boxes, masks = positives.bbox.clone(), peer[0][1]["masks"].as_subclass(Tensor)
    return [
        lambda: mask_targets([positives], [target], 28),
        lambda: project_masks_on_boxes(masks, boxes, index, 28),
    ]


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Rows per stage and per number of workers; `device` is only reported, since loading runs on the CPU."""
    count, budget, min_rounds = (4, 0.0, 1) if quick else (32, 20.0, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, count)
        settings = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "2"]
        cfg = load_config(str(CONFIG), settings)
        spec = DatasetSpec("pictures", "coco", str(folder / "ann.json"), str(folder))
        dataset, peer = build_dataset(cfg, spec, train=True), PeerDataset(folder)
        stages: dict[str, list[Callable[[], object]]] = {
            "decode": [
                _each(count, lambda i: read_record_image(str(folder), dataset.get_img_info(i))),
                _each(count, peer.decode),
            ],
            "objects": [
                _each(count, dataset.target),
                _each(count, peer.target),
            ],
            "sample": [_each(count, lambda i: dataset[SampleKey(i, 0, i)]), _each(count, peer.__getitem__)],
        }
        rows = [
            _row(case, median_ms(calls, device, budget, min_rounds), count) for case, calls in stages.items()
        ]
        rows.append(
            _row(
                "mask targets of 128 boxes", median_ms(_targets(dataset, peer), device, budget, min_rounds), 1
            )
        )
        for workers in (0, 1, 2):
            calls = _loaders(cfg, dataset, peer, workers, count)
            rows.append(
                _row(f"loader, {workers} workers", median_ms(calls, device, budget, min_rounds), count)
            )
    return rows


def _loaders(
    cfg: Any, dataset: DetectionDataset, peer: PeerDataset, workers: int, count: int
) -> list[Callable[[], object]]:
    """One epoch through the loaders of both, two images per batch."""
    clone = cfg.clone()
    clone.defrost()
    clone.DATALOADER.NUM_WORKERS = workers

    def ours() -> object:
        for _ in build_train_loader(clone, dataset, num_iters=count // 2):
            pass
        return None

    def theirs() -> object:
        for _ in DataLoader(peer, batch_size=2, shuffle=True, num_workers=workers, collate_fn=list):
            pass
        return None

    return [ours, theirs]
