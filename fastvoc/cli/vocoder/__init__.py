"""Commands of vocoders and their mels."""
