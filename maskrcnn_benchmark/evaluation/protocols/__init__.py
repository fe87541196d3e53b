"""One file per protocol; importing this package registers all of them in `evaluation.base.EVALUATORS`."""

from __future__ import annotations

from maskrcnn_benchmark.evaluation.protocols import cityscapes, coco, lvis, proposals, voc

__all__ = ["cityscapes", "coco", "lvis", "proposals", "voc"]
