"""Learning to Segment the Tail (arXiv 2004.00900): base training, then phases of new classes.

This package alone knows about phases. The model sees "number of classes", "positives of one class" and
"stored logits" as plain arguments; the data sets see an order of categories.
"""
