"""Distillation: the teacher's cosines on new-class boxes, stored before a step or computed while it trains.

Writes `distill/` (logits.npy, index.npz, header.json) in the folder of a step; reads and writes the released
JSON file. Imports no other room.
"""
