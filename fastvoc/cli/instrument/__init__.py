"""Commands of instruments."""
