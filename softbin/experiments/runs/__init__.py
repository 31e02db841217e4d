"""The life of a run, from a config to a folder of results, and the mistakes that are told in a line."""
