"""The demo data set: generated images of textured shapes in a long tail of categories."""

from __future__ import annotations

from maskrcnn_benchmark.data.datasets.demo.generate import DemoOptions, generate_demo

__all__ = ["DemoOptions", "generate_demo"]
