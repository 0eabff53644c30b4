"""Frozen dataclasses that describe a run; nothing here imports jax."""
