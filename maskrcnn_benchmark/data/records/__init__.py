"""One rule for every kind of record, by which trainer, evaluator and doctor read them alike."""
