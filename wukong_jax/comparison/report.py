"""A comparison as Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from wukong_jax.comparison.table import Comparison, Row, Spread, heading, spread

MFLOP = 1e6


def markdown(comparison: Comparison) -> str:
    """Both tables and what their figures are."""
    seeds = sorted({seed for row in comparison.rows for seed in row.by_seed})
    headings = [heading(name) for name in comparison.metrics]
    facts = ["dense parameters", "sparse parameters", "training MFLOP/example", "examples/s", "wall time"]
    lines = _table(
        ["model", "config", "seeds", *headings, *facts], (_cells(row, comparison) for row in comparison.rows)
    )
    text = "\n".join(lines) + "\n\n" + note(comparison) + "\n"
    if len(comparison.rows) < 2:
        return text
    first = comparison.rows[0].config
    headings = [cell for name in headings for cell in (f"{name}: mean ± standard error (deviation)", "ahead")]
    lines = _table(["against", "seeds", *headings], _difference_cells(comparison))
    explained = (
        f"{first} minus each other, paired by seed ({len(seeds)} seeds). Ahead is who leads by more than the standard "
        "error of the mean difference."
    )
    return f"{text}\n{explained}\n\n" + "\n".join(lines) + "\n"


def note(comparison: Comparison) -> str:
    """What the figures are, and where they were measured."""
    runs = [run.record for row in comparison.rows for run in row.by_seed.values()]
    devices = ", ".join(sorted({_place(run) for run in runs}))
    versions = ", ".join(sorted({f"jax {run['jax_version']}" for run in runs}))
    return (
        "Test split: mean ± sample standard deviation over the seeds, at the best checkpoint by validation. "
        f"Examples/s and wall time (training and validation): median of the runs, on {devices} ({versions})."
    )


def _place(record: dict[str, Any]) -> str:
    """Its device; of a CPU also which one, if the record says so."""
    known = record["platform"] == "cpu" and record.get("processor")
    return f"{record['device']} ({known})" if known else str(record["device"])


def shown(values: Spread) -> str:
    """`0.98561 ± 0.00081`; without the deviation where there is one value."""
    if math.isnan(values.mean):
        return "-"
    return f"{values.mean:.5f}" + ("" if math.isnan(values.std) else f" ± {values.std:.5f}")


def table_csv(comparison: Comparison) -> str:
    """The first table with all digits."""
    facts = ["dense_parameters", "sparse_parameters", "training_flops_per_example"]
    medians = ["examples_per_second", "wall_seconds"]
    names = [f"{name}_{part}" for name in comparison.metrics for part in ("mean", "std")]
    rows = []
    for row in comparison.rows:
        spreads = [_spread(row, name) for name in comparison.metrics]
        figures = [value for s in spreads for value in (s.mean, s.std)]
        cells = [row.model, row.config, len(row.by_seed), *figures, *map(row.fact, facts), *map(row.median, medians)]
        rows.append(cells)
    return _csv(["model", "config", "seeds", *names, *facts, *medians], rows)


def differences_csv(comparison: Comparison) -> str:
    """The second table with all digits, one line a row and metric."""
    rows = [
        [comparison.rows[0].config, d.config, d.metric, d.spread.size, *d.spread[:2], d.spread.error, d.ahead]
        for d in comparison.differences
    ]
    return _csv(["first", "against", "metric", "seeds", "mean", "std", "standard_error", "ahead"], rows)


def _spread(row: Row, metric: str) -> Spread:
    return spread(list(row.scores(metric).values()))


def _cells(row: Row, comparison: Comparison) -> list[str]:
    speed = row.median("examples_per_second")
    return [
        row.model,
        row.config,
        str(len(row.by_seed)),
        *(shown(_spread(row, name)) for name in comparison.metrics),
        f"{row.fact('dense_parameters'):,}",
        f"{row.fact('sparse_parameters'):,}",
        f"{row.fact('training_flops_per_example') / MFLOP:,.3f}",
        f"{speed:,.0f}" if speed else "-",
        f"{row.median('wall_seconds'):,.1f} s",
    ]


def _difference_cells(comparison: Comparison) -> Iterable[list[str]]:
    for row in comparison.rows[1:]:
        found = [d for d in comparison.differences if d.config == row.config]
        cells = [row.config, str(found[0].spread.size) if found else "0"]
        for d in found:
            known = not math.isnan(d.spread.error)
            error = f" ± {d.spread.error:.5f} ({d.spread.std:.5f})" if known else ""
            cells += ["-" if math.isnan(d.spread.mean) else f"{d.spread.mean:+.5f}{error}", d.ahead]
        yield cells


def _table(headings: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _csv(headings: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows)
    return text.getvalue()
