"""Users as sequences of items: reading them, and the recommenders trained on them."""
