"""Floor 8: explains a configuration and checks it against data, weights and machine before a run starts."""
