"""Reports of one run: AP of every phase, class and group, forgetting, tables and charts.

Writes `report/` in the folder of a phase; `summary.json`, `summary.csv`, `summary.png` and `tensorboard/` in
the run folder. Imports `plan`.
"""
