"""Images for people: detections drawn on images and line charts, with Pillow only."""
