"""Mask head: RoI features, mask predictors, targets, loss, masks of detections."""
