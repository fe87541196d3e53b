"""Keypoint head: heat maps of named points in every detected object (He et al. 2017; core spec 11)."""
