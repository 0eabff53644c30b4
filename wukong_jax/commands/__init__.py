"""One module a command of `python -m wukong_jax`, each with `main(argv) -> int`."""
