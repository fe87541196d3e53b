"""FCOS: boxes from points (Tian et al. 2019)."""
