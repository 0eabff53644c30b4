"""What a model that finds interactions up to an order only would reach on the data `planted`.

    python benchmarks/planted_orders.py

Every term of the planted logit is a sum of products of centred, independent latents, one product for each subset of its
fields; products of more than k latents are left out, the weight of each order that stays is fitted anew, and the
LogLoss on the test rows is compared with that of the true probabilities.
"""

import argparse

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float64, Int32

from wukong_jax.data.planted import SPLITS, Planted, draw, plant, true_probabilities
from wukong_jax.data.recipes.planted import CONFIG


def logits_by_order(planted: Planted, ids: Int32[np.ndarray, "rows fields"]) -> Float64[np.ndarray, "orders rows"]:
    """The part of the logit that is made of exactly 0, 1, 2, ... latents; they add up to the whole but for its bias."""
    deepest = max(map(len, planted.terms))
    centred = [latent.astype(np.float64)[ids[:, f] - 1] - planted.mean for f, latent in enumerate(planted.latents)]
    found = np.zeros((deepest + 1, len(ids)))
    for term, scale in zip(planted.terms, planted.scales, strict=True):
        products = np.zeros((deepest + 1, *centred[0].shape))
        products[0] = scale
        for f in term:
            products[1:] = planted.mean * products[1:] + centred[f] * products[:-1]
            products[0] *= planted.mean
        found += products.sum(axis=-1)
    return found


def best_logloss(parts: Float64[np.ndarray, "orders rows"], labels: Bool[np.ndarray, "rows"]) -> float:
    """Mean cross-entropy in nats with the best weight of every part; the first one, a constant, is the bias."""
    parts = np.concatenate([np.ones_like(parts[:1]), parts[1:]])

    def loss(weights: Float64[np.ndarray, "orders"]) -> tuple[float, Float64[np.ndarray, "orders"]]:
        logits = weights @ parts
        slope = parts @ (1.0 / (1.0 + np.exp(-logits)) - labels) / len(labels)
        return float(np.mean(np.logaddexp(0.0, logits) - labels * logits)), slope

    return float(scipy.optimize.minimize(loss, np.ones(len(parts)), jac=True, method="L-BFGS-B").fun)


def main() -> None:
    """Print a Markdown table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    planted = plant(CONFIG)
    rows = draw(CONFIG, SPLITS.index("test"), 0, CONFIG.test)
    truth = true_probabilities(planted, rows)
    labels = rows.label_draws < truth
    parts = logits_by_order(planted, rows.ids)
    logits = parts.sum(axis=0) + planted.bias
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-logits)), truth, atol=1e-4)
    floor = float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
    print("| interactions up to order | LogLoss | above the floor |\n|---|---|---|")
    for order in range(len(parts)):
        found = best_logloss(parts[: order + 1], labels)
        print(f"| {order} | {found:.5f} | {found - floor:.5f} |")


if __name__ == "__main__":
    main()
