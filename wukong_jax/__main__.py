"""`python -m wukong_jax`."""

import sys

from wukong_jax.cli import main

sys.exit(main(sys.argv[1:]))
