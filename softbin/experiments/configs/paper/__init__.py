"""The published experiments, whole."""
