"""Networks on a GPU by the kernels of `csrc/cuda`: an operator is a network of one layer or a few."""
