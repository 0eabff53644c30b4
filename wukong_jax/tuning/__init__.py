"""Search over a config's settings by Optuna."""
