"""AP of boxes and masks under the COCO and LVIS protocols, computed from arrays in memory."""
