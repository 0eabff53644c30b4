"""Models: flax modules that map looked-up rows and dense inputs to logits."""
