"""regauge: the symmetry compiler for neural networks."""
