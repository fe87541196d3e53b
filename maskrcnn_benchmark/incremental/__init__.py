"""LST, incremental learning down the long tail (Hu et al. 2020, "Learning to Segment the Tail").

Base training, then phases of new classes (arXiv 2004.00900). This package alone knows about phases: the model
sees "number of classes", "class-specific positives" and "stored logits" as plain arguments, and the data sets
see an order of categories. Rooms, lowest first: `plan`; `replay`, `distillation`, `growth`, `reporting`;
`pipeline`; `released`, `comparison`.
"""
