"""Training of the fraud model: `python -m fraud.training`."""
