"""Embedding tables outside the module tree: plan, lookup, and updates of the touched rows."""
