"""Train a recommender: `python train.py --help`, `python train.py --config configs/frappe.py --train.seed 1`."""

import pathlib
import sys
from collections.abc import Sequence

from wukong_jax.config.command_line import TrainArguments, parse_run_arguments
from wukong_jax.errors import UserError
from wukong_jax.process import prepare_process


def main(arguments: Sequence[str]) -> int:
    """Parse, train or resume, show the results; exit code 2 on bad input, 128 + signal when stopped by one."""
    try:
        options = parse_run_arguments(TrainArguments, arguments, "train.py")
        prepare_process()
        # after parsing: jax takes a second to import, and --help needs none of it
        from wukong_jax.distributed import run_job

        return run_job(options.distributed, lambda: train_run(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # outside the training steps, or a second time
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def train_run(options: TrainArguments) -> int:
    """Train the run of the options and show its results; of several processes, process 0 shows them."""
    import rich.console

    from wukong_jax.agreement import leads
    from wukong_jax.training.display import final_tables
    from wukong_jax.training.loop import StoppedBySignal
    from wukong_jax.training.run import default_folder, train

    console = rich.console.Console(quiet=not leads())
    folder = options.run_dir or default_folder(options.run, pathlib.Path("runs"))
    try:
        record = train(options.run, folder, console, fresh=options.fresh, force=options.force)
    except StoppedBySignal as stopped:
        console.print(f"{stopped}; saved in {folder}: the same command resumes it", soft_wrap=True, markup=False)
        return 128 + stopped.number
    console.print(*final_tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
