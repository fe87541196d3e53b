"""Balanced replay: plans, files, statistics."""
