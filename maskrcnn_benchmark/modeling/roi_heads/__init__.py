"""Heads on pooled regions of interest: box, mask, keypoints."""
