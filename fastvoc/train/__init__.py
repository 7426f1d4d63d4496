"""A run becomes weights. Today: the vocoder that comes with the package."""
