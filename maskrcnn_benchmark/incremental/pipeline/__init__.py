"""Pipeline: the stages of a run in order, what each does, and which of them are done already.

Writes `state.json` and `config.yml`, and calls the rooms below for everything else. Imports `plan`, `replay`,
`distillation`, `growth` and `reporting`.
"""
