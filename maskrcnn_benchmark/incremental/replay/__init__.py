"""Balanced replay: which (image, class) pairs an epoch of a step holds, as a plan, a stream or index files.

Writes `replay.json` in the folder of a step and, on request, the two released index files. Imports `plan`.
"""
