"""Floor 0: the configuration tree, how it is loaded and checked, and the names of data sets and weights."""
