"""What the name of a metric says: whether it falls as models get better, and between what it can lie."""

import math
import re

FALLING = re.compile(r"(^|[^a-z])(\w*loss|perplexity|ppl|error|rmse|mae|mse|ne)([^a-z]|$)")
SHARE = re.compile(r"(^|[^a-z])(hr|hit|hitrate|ndcg|mrr|map|recall|precision|accuracy|g?auc)([^a-z]|$)")


def falls(metric: str) -> bool:
    """Whether the name says that the metric falls as a model gets better."""
    return FALLING.search(metric.lower()) is not None


PERCENT = 100.0


def is_share(metric: str) -> bool:
    """Whether the name is that of a hit rate, NDCG, AUC or their like."""
    return SHARE.search(metric.lower()) is not None


def possible_range(metric: str, low: float, high: float) -> tuple[float, float]:
    """Between what a metric of that name can lie, given the lowest and the highest value that was measured.

    Hit rate, NDCG, AUC and their like: 0 to 1, or to 100 where one is above 1; a loss or an error: from 0 on. Where the
    name says nothing, or what was measured lies outside (a log-likelihood), anything is possible.
    """
    if is_share(metric):
        limits = (0.0, PERCENT if high > 1 else 1.0)
    elif falls(metric):
        limits = (0.0, math.inf)
    else:
        return -math.inf, math.inf
    return limits if limits[0] <= low and high <= limits[1] else (-math.inf, math.inf)
