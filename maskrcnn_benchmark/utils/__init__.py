"""Floor 0: errors, registries, files, processes, random numbers, logging and text output."""
