"""Growing a classifier by new classes."""
