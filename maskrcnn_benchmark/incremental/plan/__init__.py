"""Phase plan: the classes in training order, divided into phases; derived annotation files; the run folder.

Writes `classes.json` and, on request, the released set of annotation files. The lowest room.
"""
