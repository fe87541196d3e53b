"""RetinaNet: anchors and the focal loss (Lin et al. 2017, Focal Loss for Dense Object Detection)."""
