"""What all commands need: their configs, their folders of results, and errors in a line."""
