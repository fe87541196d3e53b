"""Keypoint head: one heat map per keypoint and RoI (He et al. 2017, section 5)."""
