"""All that was found out about some runs, and the same as plain values for JSON."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from wukong_jax.performance_law.answers import plain_answer
from wukong_jax.performance_law.comparison import Comparison
from wukong_jax.performance_law.fit import Fitted
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.next_run import NextRun
from wukong_jax.performance_law.optimum import Optimum
from wukong_jax.performance_law.search import Search


@dataclasses.dataclass(frozen=True)
class Findings:
    """The forms compared, the one that is used, and what it answers."""

    name: str
    comparison: Comparison
    fit: Fitted
    panel: int
    data: float | None
    lattice: Lattice
    optima: Mapping[str, Optimum]
    """By question, the first of them overall."""
    following: NextRun | None
    """Runs to make next; None where there is no noise to weigh them by."""

    @property
    def search(self) -> Search:
        """The law of one panel."""
        return Search(self.fit, self.panel, self.data)


def plain(value: Any) -> Any:
    """JSON values: dataclasses and named tuples as objects, arrays as lists, null for NaN, "inf" for no end."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, pathlib.Path):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def comparison_plain(comparison: Comparison) -> dict[str, Any]:
    """Every form: parameters, quality, notes; and which predicts best."""
    runs = comparison.fits[0].runs
    return {
        "metric": runs.metric,
        "rising": runs.rising,
        "runs": len(runs.y),
        "panels": runs.panels,
        "left_out": runs.left_out and [dataclasses.asdict(one) for one in runs.left_out],
        "best": comparison.best,
        "best_held_out": comparison.best_held_out,
        "verdict": comparison.verdict,
        "rivals": comparison.rivals,
        "skipped": comparison.skipped,
        "fits": [fit_plain(fit) for fit in comparison.fits],
    }


def fit_plain(fit: Fitted) -> dict[str, Any]:
    """One form."""
    return {
        "form": fit.form.name,
        "formula": fit.form.formula,
        "p1": fit.p1,
        "level": fit.level,
        "parameters": fit.parameters,
        "unidentified": fit.unidentified,
        "notes": fit.notes,
        "quality": fit.quality,
    }


def optimum_plain(found: Optimum) -> dict[str, Any]:
    """One question's answer, with the whole region."""
    region = {name: getattr(found.region, name) for name in ("layers", "dims", "metric", "share", "interpolated")}
    return {
        "budgets": {budget.name: budget.limit for budget in found.budgets},
        "layers": plain_answer(found.layers),
        "dim": plain_answer(found.dim),
        "best": found.best,
        "cheapest": found.cheapest,
        "promise": {**found.promise._asdict(), "verdict": found.promise.verdict, "error": found.promise.error},
        "tolerance": found.region.tolerance,
        "sizes_searched": found.region.of,
        "region": region,
    }


def findings_plain(findings: Findings) -> dict[str, Any]:
    """The answers of a recommendation."""
    following = findings.following
    next_plain = None
    if following is not None:
        next_plain = {**dataclasses.asdict(following), "reduction": following.reduction}
    return {
        "form": findings.fit.form.name,
        "panel": findings.fit.runs.panels[findings.panel],
        "fit": fit_plain(findings.fit),
        "answers": {question: optimum_plain(found) for question, found in findings.optima.items()},
        "next": next_plain,
    }
