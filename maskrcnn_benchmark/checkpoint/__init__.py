"""Floor 4: weight files in, safely and with a report; checkpoints of a run out, whole or not at all."""
