"""Runs from the files of the LST release."""
