"""Modules between a body and the heads."""
