"""Inference: from a core graph to its gauge group, in passes that each hold one idea."""
