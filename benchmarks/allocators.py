"""Our training step under several allocators: what preloading one would be worth.

    python benchmarks/allocators.py --allocators default glibc_tuned /usr/lib/x86_64-linux-gnu/libjemalloc.so.2

`default` is train.py's own: glibc's, told by the program to keep freed memory and to take huge pages. Each has a
process of its own, all resident together, rounds in turn; several times anew, for where a process's pages lie decides
much. Examples/s, median (lowest to highest), and the ratio to the first.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
from contextlib import ExitStack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side.allocator import allocator_name, environment
from benchmarks.side_by_side.batches import write_batches
from benchmarks.side_by_side.cells import Cell, grid, select
from benchmarks.side_by_side.in_turn import shown
from benchmarks.side_by_side.peers import OURS, Bench
from wukong_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def rates(cell: Cell, allocators: list[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Examples per second of each round of each allocator, of processes started anew."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = pathlib.Path(name)
        write_batches(cell, folder / "batches.npz")
        processes = {}
        for allocator in allocators:
            bench = Bench(folder, environment(allocator, ROOT))
            processes[allocator] = stack.enter_context(bench.process(OURS))
            bench.build(processes[allocator], OURS, cell, {})
            processes[allocator].ask("start")
        found: dict[str, list[float]] = {allocator: [] for allocator in allocators}
        for _ in range(rounds):
            for allocator, process in processes.items():
                answer = process.quiet_round(seconds)
                found[allocator].append(cell.batch * answer["steps"] / answer["seconds"])
        return found


def main() -> int:
    """Print a Markdown table; 2 for an allocator that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allocators", nargs="+", default=["default", "glibc_tuned"])
    parser.add_argument("--cells", nargs="+", default=[f"{shape} {n} 1M" for shape in "SML" for n in (4096, 16384)])
    parser.add_argument("--starts", type=int, default=4, help="how often processes are started, in turned order")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each process")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    options = parser.parse_args()
    try:
        for allocator in options.allocators:
            environment(allocator, ROOT)
    except ConfigError as error:
        print(str(error).replace("--allocator:", "--allocators:"), file=sys.stderr)
        return 2
    names = [allocator_name(allocator) for allocator in options.allocators]
    print(f"| cell | {' | '.join(names)} | {' | '.join(f'{name} / {names[0]}' for name in names[1:])} |")
    print("|---" * 2 * len(names) + "|")
    for cell in select(grid(gpu=False), tuple(f"{words} train float32 rowwise_adagrad" for words in options.cells)):
        found: dict[str, list[float]] = {allocator: [] for allocator in options.allocators}
        for start in range(options.starts):
            order = options.allocators[start % len(names) :] + options.allocators[: start % len(names)]
            for allocator, times in rates(cell, order, options.rounds, options.seconds).items():
                found[allocator] += times
        first, *others = map(statistics.median, found.values())
        ratios = " | ".join(f"{other / first:.2f}" for other in others)
        print(f"| {cell.shape_name} {cell.batch} | {' | '.join(map(shown, found.values()))} | {ratios} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
