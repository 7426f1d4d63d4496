"""Commands of autoencoders."""
