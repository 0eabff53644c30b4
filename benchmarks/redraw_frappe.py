"""Another draw of the items of Frappe's train negatives, to see what a draw is worth.

    python benchmarks/redraw_frappe.py --source FOLDER --seed 1 --out redrawn/1
    python train.py --config configs/frappe.py --data.source redrawn/1 --data.root redrawn/1/data

Frappe's published train file is hard to get; one with rebuilt negatives serves instead. All that was drawn in it are
the negatives' items: for each user without replacement, from the items that are neither in the user's log nor among
the user's validation and test negatives. This draws them anew and copies the two other files.
"""

import argparse
import gzip
import pathlib
import random
import sys
from collections import defaultdict

from wukong_jax.data.obtain import find_file, read_file
from wukong_jax.data.recipes.frappe import LIBFM
from wukong_jax.errors import UserError

Row = tuple[str, ...]


def read_rows(path: pathlib.Path) -> list[Row]:
    """Label, user, item and context of each libFM line."""
    return [tuple(line.split(" ")) for line in read_file(path).decode().splitlines()]


def redraw(train: list[Row], held_out: list[Row], seed: int) -> list[Row]:
    """The train rows with other items for the negatives, shuffled."""
    rng = random.Random(seed)
    positives = sorted(row for row in train if row[0] == "1")
    items = sorted({row[2] for row in [*train, *held_out]})
    taken, contexts = defaultdict(set), defaultdict(list)
    for row in [*positives, *held_out]:
        taken[row[1]].add(row[2])
    for row in train:
        if row[0] != "1":
            contexts[row[1]].append(row[3:])
    rows = list(positives)
    for user in sorted(contexts):
        pool = [item for item in items if item not in taken[user]]
        drawn = rng.sample(pool, len(contexts[user]))
        rows += [("-1", user, item, *context) for item, context in zip(drawn, sorted(contexts[user]), strict=True)]
    rng.shuffle(rows)
    return rows


def main() -> int:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, required=True, help="folder with Frappe's libFM files")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the new files")
    options = parser.parse_args()
    try:
        files = {split: find_file(options.source, names) for split, names in LIBFM.items()}
        rows = {split: read_rows(path) for split, path in files.items()}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    drawn = redraw(rows["train"], rows["valid"] + rows["test"], options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        (LIBFM["train"][1], drawn),
        (LIBFM["valid"][0], rows["valid"]),
        (LIBFM["test"][0], rows["test"]),
    ):
        (options.out / f"{name}.gz").write_bytes(gzip.compress("".join(f"{' '.join(row)}\n" for row in lines).encode()))
    print(f"{options.out}: {len(drawn):,} train rows, negatives' items drawn with seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
