"""Floor 0: errors, registries, atomic files, ranks, seeds, logging, progress and tables."""
