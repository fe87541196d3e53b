"""Published families of weight files: one record each, tried in the order of `families.table`."""
