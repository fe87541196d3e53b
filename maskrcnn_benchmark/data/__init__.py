"""From annotation files and images to batches: data sets, transforms, samplers, loaders."""
