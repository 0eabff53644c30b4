"""Compute and parameters of every model; the laws fitted to them."""
