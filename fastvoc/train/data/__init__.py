"""Recordings, lists and mels on disk, as batches of segments."""
