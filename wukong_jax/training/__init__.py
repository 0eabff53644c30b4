"""State, optimizers, the jitted step, checkpoints, and the loop around them."""
