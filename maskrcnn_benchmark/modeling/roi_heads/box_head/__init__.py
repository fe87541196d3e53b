"""Box head: RoI features, class and box predictors, sampling, losses, detections."""
