"""From annotation files and pictures to batches: data sets, transforms, samplers, loaders."""
