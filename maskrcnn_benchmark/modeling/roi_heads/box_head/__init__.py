"""Box head: region features, class and box predictors, targets, losses, detections."""
