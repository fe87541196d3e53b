"""Heads that work on pooled regions of interest."""
