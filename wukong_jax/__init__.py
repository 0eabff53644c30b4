"""Wukong (arXiv 2403.02545) in JAX/Flax, with the laboratory its scaling law asks for."""

__version__ = "0.1.0"
