"""Checks of the reference outputs of Learning to Segment the Tail."""
