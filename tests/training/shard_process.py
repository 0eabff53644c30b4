"""One of two processes that train a case of test_shard_equality.py: PROCESS PORT CASE OUT."""

import pathlib
import pickle
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from tests.training import test_shard_equality as proof


def main(process: int, port: str, case: str, out: pathlib.Path) -> None:
    """Train; process 0 writes the loss, the parameters, and tables and slots row by row."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    with proof.double_precision():
        model, update, optimizer, on, part = proof.CASES[case]
        program, state = proof.trained(model, update, optimizer, on, part)
        own = (state.loss_sum, state.params, state.tables, state.slots)
        loss, params, tables, slots = jax.tree.map(np.asarray, multihost_utils.process_allgather(own, tiled=True))
        whole = state.replace(slots=slots)
        found = (loss, params, proof.tables(program, tables), proof.slots(program, whole))
    if process == 0:
        out.write_bytes(pickle.dumps((jax.process_count(), jax.device_count(), found)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]))
