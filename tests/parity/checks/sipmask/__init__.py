"""Checks of the reference outputs of FCOS and SipMask."""
