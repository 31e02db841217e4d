"""Robust regression: the trimmed mean of squared errors beside other robust losses, where some targets are wrong."""
