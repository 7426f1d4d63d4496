"""Commands of files of weights."""
