"""The training loop with its hooks, inference, the predictor and distributed launch."""
