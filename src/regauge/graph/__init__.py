"""The core graph: what a model computes, in a dozen operations."""
