"""Training of networks: data, models, losses, and a run that can be cut off and goes on."""
