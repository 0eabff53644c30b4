"""A data-quality report as tables on the terminal."""

import math

import rich.console
import rich.table

from wukong_jax.performance_law.data_quality import DataQuality
from wukong_jax.performance_law.data_terms import Bound


def print_quality(quality: DataQuality, console: rich.console.Console) -> None:
    """Sizes, measures of the whole, the sweep over m, the coding bound and the warnings."""
    console.print(f"data: {quality.origin}", markup=False, soft_wrap=True)
    size = quality.size
    table = rich.table.Table("measure", "value", title="size and order", title_justify="left")
    rows = {
        "users": f"{size.users:,}",
        "items": f"{size.items:,}",
        "interactions (tokens)": f"{size.interactions:,}",
        "length, mean": f"{size.mean_length:.4g}",
        f"length, quantiles {' '.join(size.length_quantiles)}": " ".join(
            f"{value:g}" for value in size.length_quantiles.values()
        ),
        "repeat rate": f"{size.repeat_rate:.4%}",
        "sparsity": f"{size.sparsity:.4%}",
        "Shannon entropy of the items": f"{quality.shannon_bits:.4f} bits",
        "compression ratio (zlib, 4-byte ids; small: regular)": f"{quality.compression_ratio:.4f}",
        "real entropy S_real, sequences joined": f"{quality.real_entropy:.4f} nats",
        "D' of the P-Law: tokens / S_real": number(quality.d_real),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table, markup=False)
    real = quality.real_bound
    console.print(f"coding bound, tokens / S_real: {_bound(real)}; {real.reason}", markup=False, soft_wrap=True)
    table = rich.table.Table(title="approximate entropy (r = 0, nats, signed)", title_justify="left")
    for heading in ("m", "mean of users", "pooled", "within users", "repeated windows", "users without ApEn'"):
        table.add_column(heading, justify="right", overflow="fold")
    for entropy in quality.entropies:
        table.add_row(
            str(entropy.m),
            *(_nats(value) for value in (entropy.mean, entropy.pooled, entropy.pooled_within_users)),
            "-" if math.isnan(entropy.repeated_share) else f"{entropy.repeated_share:.2%}",
            f"{entropy.too_short + entropy.zero + entropy.negative:,}",
        )
    console.print(table, markup=False)
    table = rich.table.Table(title=f"D' of the arXiv version (policy: {quality.policy})", title_justify="left")
    for heading in ("m", "sum |S_u| ApEn'(S_u)", "tokens / mean ApEn", "tokens / pooled ApEn", "coding bound"):
        table.add_column(heading, justify="right", overflow="fold")
    for entropy in quality.entropies:
        terms = (entropy.d_users, entropy.d_mean, entropy.d_pooled)
        table.add_row(str(entropy.m), *(number(term) for term in terms), _bound(entropy.bound))
    console.print(table, markup=False)
    for reason, ms in _reasons(quality).items():
        console.print(f"coding bound, m = {', '.join(ms)}: {reason}", markup=False, soft_wrap=True)
    for warning in quality.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def number(value: float) -> str:
    """Four digits, or that there is no value."""
    return "undefined" if math.isnan(value) else f"{value:.4g}"


def _nats(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.5f}"


def _bound(bound: Bound) -> str:
    return "-" if bound.value is None else number(bound.value)


def _reasons(quality: DataQuality) -> dict[str, list[str]]:
    """The remarks on the bound, each with its m."""
    reasons: dict[str, list[str]] = {}
    for entropy in quality.entropies:
        reasons.setdefault(entropy.bound.reason, []).append(str(entropy.m))
    return reasons
