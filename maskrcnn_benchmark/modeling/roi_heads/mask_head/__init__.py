"""Mask head: region features, mask predictors, targets, loss, masks of detections."""
