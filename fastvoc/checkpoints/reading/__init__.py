"""Foreign files, found and read without trust: tensors and plain values come out, and no code runs."""
