"""Data sets: the readers of their files, as images and as tables."""
