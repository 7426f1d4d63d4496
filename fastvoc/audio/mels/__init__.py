"""Mel spectrograms: the conventions of the field, the making of mels, and whether one can be of a convention."""
