"""Data sets on disk: formats, checks, and annotations made from folders of pictures."""
