"""How weights follow their gradients: optimisers, weight norm, moving averages, several processes."""
