"""One-stage heads, one folder each; `base.py` holds their contract, `common.py` what they share."""
