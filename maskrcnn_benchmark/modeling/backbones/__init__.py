"""Convolutional bodies and the function that builds body plus neck from a config."""
