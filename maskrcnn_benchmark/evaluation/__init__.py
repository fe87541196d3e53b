"""Evaluators behind one interface (`base.py`), one file per protocol, and the AP core that they share."""
