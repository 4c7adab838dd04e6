"""One folder per network architecture."""
