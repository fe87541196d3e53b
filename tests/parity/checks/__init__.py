"""Checks of this code base against reference outputs of the original programs."""
