"""Comparison of several runs: side by side in tables and charts, and ablations over variants and seeds.

Writes `ablation.json`, `ablation.md` and PNG charts. Imports `plan`, `reporting` and `pipeline`.
"""
