"""Released workflow: one phase at a time from the files and keys of the LST release, without the scheduler.

Writes checkpoints into OUTPUT_DIR, the store `distill/` and `distilled_logits.json`. Imports `plan`,
`distillation`, `growth` and `pipeline`.
"""
