"""Visualization: detections and ground truth drawn on images with Pillow, charts with matplotlib."""
