"""Checks across keys: the general ones, and one file per model family."""
