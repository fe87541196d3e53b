"""RetinaNet (Lin et al., Focal Loss for Dense Object Detection, 2017; core spec 12)."""
