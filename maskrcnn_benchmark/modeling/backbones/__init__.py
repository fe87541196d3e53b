"""Convolutional backbones, and the function that builds one from a config."""
