"""Reports, comparisons and ablations over phases."""
