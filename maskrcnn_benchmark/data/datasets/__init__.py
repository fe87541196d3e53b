"""Data sets on disk: COCO and LVIS annotation files, and the generated demo set."""
