"""Checks of the reference outputs of two-stage base and RetinaNet."""
