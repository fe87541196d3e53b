"""Whole detectors: the composition of backbone, neck and heads."""
