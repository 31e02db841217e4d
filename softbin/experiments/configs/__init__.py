"""Configs by name, `--config=digits` for `digits.py`: one file an experiment, each with `get_config()`."""
