"""Wukong (arXiv 2403.02545) in JAX/Flax, with the laboratory its scaling law asks for."""

__version__ = "0.1.0"

# Counts the changes after which the same config gives other results than rounding explains (initialisation, order of
# examples, dropout masks, an optimizer's formula). Runs of two revisions do not stand in one table.
NUMERICS_REVISION = 1
