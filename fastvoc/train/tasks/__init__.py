"""What networks learn from, and how: the steps of training and their losses."""
