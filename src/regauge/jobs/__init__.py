"""Work on directories: apply an element to a checkpoint, take it back, and what stands beside the weights to say so."""
