"""One of two processes that train a case of shard_cases.py in float64: PROCESS PORT CASE OUT."""

import pathlib
import pickle
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from tests.training.shard_cases import CASES, double_precision, slots, small_exchange_rooms, tables, trained


def main(process: int, port: str, case: str, out: pathlib.Path) -> None:
    """Train; process 0 writes the losses, the parameters, and tables and slots row by row."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    with double_precision(), small_exchange_rooms():
        program, state, losses = trained(CASES[case])
        own = (state.params, state.tables, state.slots)
        params, all_tables, all_slots = jax.tree.map(np.asarray, multihost_utils.process_allgather(own, tiled=True))
        found = (losses, params, tables(program, all_tables), slots(program, all_slots))
    if process == 0:
        out.write_bytes(pickle.dumps((jax.process_count(), jax.device_count(), found)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]))
