"""Data sets on disk: annotation files of every kind, the data set over them, and the generated demo data."""
