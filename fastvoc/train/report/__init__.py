"""What a run shows: its log, curves, pictures, sounds and validation."""
