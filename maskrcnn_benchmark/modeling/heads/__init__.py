"""One-stage heads, one folder each; `contract.py` says what all of them do."""
