"""Modules between a backbone and the heads."""
