"""Data sets, synthetic people, the model, losses, training and evaluation (needs the `train` extra)."""
