"""Instance segmentation that keeps learning: Mask R-CNN trained phase by phase down the long tail."""

__version__ = "0.1.0"
