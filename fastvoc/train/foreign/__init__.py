"""Runs of other projects, to go on with."""
