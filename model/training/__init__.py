"""The bare training loop of the networks."""
