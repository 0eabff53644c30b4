"""Runs beside each other: records that can be committed, and the tables made of them."""
