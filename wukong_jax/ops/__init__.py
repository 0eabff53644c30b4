"""Numerical kernels of the interaction layers."""
