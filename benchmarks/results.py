"""Write the tables of docs/results.md anew from the records under results/; nothing is trained.

    python benchmarks/results.py

A table stands between `<!-- records: FOLDER; first: CONFIG -->` and `<!-- end of records -->`; its first row is CONFIG,
which the differences are taken from. The text around them stays as it is.
"""

import pathlib
import re
import sys

from wukong_jax.comparison.plot import draw_auc_flops
from wukong_jax.comparison.records import read_folder
from wukong_jax.comparison.report import markdown
from wukong_jax.comparison.table import Comparison, compare_rows, make_rows
from wukong_jax.errors import DataError, UserError
from wukong_jax.files import write_text

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "results.md"
SECTION = re.compile(
    r"(?P<start><!-- records: (?P<folder>\S+); first: (?P<first>\S+) -->\n).*?(?P<end><!-- end of records -->)",
    re.DOTALL,
)


def comparison_of(folder: pathlib.Path, first: str) -> Comparison | None:
    """The comparison of all records of a folder, the other rows by AUC; None where there is no record."""
    runs = read_folder(folder)
    if not runs:
        return None
    comparison = compare_rows(make_rows(runs, first))
    metric = comparison.metrics[0]
    others = sorted(comparison.rows[1:], key=lambda row: -sum(row.scores(metric).values()) / len(row.by_seed))
    return compare_rows([comparison.rows[0], *others])


def section(folder: str, first: str, root: pathlib.Path) -> str:
    """What stands between the markers."""
    comparison = comparison_of(root / folder, first)
    if comparison is None:
        return f"No run is recorded in `{folder}` yet.\n"
    return f"![AUC against training MFLOP]({picture(folder).name})\n\n{markdown(comparison)}"


def picture(folder: str) -> pathlib.Path:
    """The plot of a folder, beside the document."""
    return pathlib.Path("docs") / f"results-{pathlib.Path(folder).name}.png"


def rewritten(text: str, root: pathlib.Path = ROOT) -> str:
    """The document with every table made anew; raises `DataError` if it has no marker."""
    if not SECTION.search(text):
        raise DataError("no `<!-- records: FOLDER; first: CONFIG -->` ... `<!-- end of records -->` in the document")
    return SECTION.sub(
        lambda found: found["start"] + section(found["folder"], found["first"], root) + found["end"], text
    )


def main() -> int:
    """Rewrite the document and its plots; exit code 2 where the records cannot be used."""
    try:
        text = DOCUMENT.read_text()
        write_text(DOCUMENT, rewritten(text))
        for found in SECTION.finditer(text):
            comparison = comparison_of(ROOT / found["folder"], found["first"])
            if comparison is not None:
                draw_auc_flops(ROOT / picture(found["folder"]), comparison)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
