"""Commands that try and measure this machine."""
