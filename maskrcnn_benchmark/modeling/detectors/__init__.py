"""Whole detectors: the composition of body, neck and heads."""
