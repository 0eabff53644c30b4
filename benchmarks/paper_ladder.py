"""The paper's ladder (table 5) in our count: n solved for under every convention, residuals row by row, as Markdown.

    python benchmarks/paper_ladder.py

What comes of it stands in wukong_jax/scaling/paper_ladder.py.
"""

import numpy as np

from wukong_jax.scaling.paper_ladder import PAPER_ROWS, all_fits, best_embeddings, dense_parameters


def main() -> None:
    """Print the conventions, the rows of the best one, and the differences of parameters."""
    fits = all_fits()
    print("| FLOPs per multiply-add | head | first residual | embedding layer, GFLOP | n | error | residuals, % |")
    print("|---:|---|---|---:|---:|---:|---|")
    for fit in fits:
        way = fit.convention
        constant = f"{fit.constant_gflop:.2f}" if way.constant else "not counted"
        residuals = " ".join(f"{100 * residual:+.0f}" for residual in fit.residuals)
        print(
            f"| {way.flops_per_multiply_add} | {way.head} | {'counted' if way.first_residual else 'not counted'} | "
            f"{constant} | {fit.embeddings:,} | {100 * fit.error:.1f} % | {residuals} |"
        )
    best = fits[0]
    ours = np.array(dense_parameters(best)) / 1e9
    print(f"\nThe best, n = {best.embeddings:,}; parameters in billions, FLOPs in GFLOP per example:\n")
    headings = (
        "l", "n_F = n_L", "k", "MLP", "printed", "ours", "residual", "n of the row alone", "dense parameters, ours",
        "more than in the row above: printed", "ours",
    )  # fmt: skip
    print(f"| {' | '.join(headings)} |\n|{'---:|' * len(headings)}")
    for index, row in enumerate(PAPER_ROWS):
        more = ("", "")
        if index:
            printed = row.billion_parameters - PAPER_ROWS[index - 1].billion_parameters
            more = (f"{printed:.2f}", f"{ours[index] - ours[index - 1]:.2f}")
        print(
            f"| {row.layers} | {row.embeddings} | {row.rank} | 3 x {row.mlp_width:,} | {row.gflop:g} | "
            f"{best.gflop[index]:.2f} | {100 * best.residuals[index]:+.1f} % | "
            f"{best_embeddings(row, best):,} | {ours[index]:.3f} | {more[0]} | {more[1]} |"
        )


if __name__ == "__main__":
    main()
