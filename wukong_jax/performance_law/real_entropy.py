"""Real (Lempel-Ziv) entropy of a symbol sequence: S = ln n / mean(Lambda_i), exact, in O(n log n) whatever the data.

Lambda_i is the length of the shortest substring that begins at i and does not occur within the items before i. Where
all that is left, n - i items from a 0-based i, occurs there, Lambda_i = n - i + 1.

Lambda_i - 1 is the longest k for which the first occurrence of the k items from i ends at i or before. Substrings of
one set of occurrences are a node of the suffix tree, `depth` items long at most, first at position `first`; the nodes
above have shorter ones, which begin no later. So on the way from suffix i to the root there is a first node with
depth <= i - first: the answer is its depth, or i - first of the node below it, which is cut off where the items
before i end. The suffix array comes from prefix doubling, the nodes from the intervals of its longest common prefixes.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

Ranks = list[Int32[np.ndarray, "n"]]


class SuffixTree(NamedTuple):
    """The inner nodes of a suffix tree, and the node above each suffix. Node 0 is the root."""

    depth: Int64[np.ndarray, "nodes"]
    """Items that all suffixes of the node begin with."""
    first: Int64[np.ndarray, "nodes"]
    """First position of those suffixes."""
    parent: Int64[np.ndarray, "nodes"]
    above: Int64[np.ndarray, "n"]
    """Node above the suffix at each position."""


def real_entropy(sequence: Int[np.ndarray, "n"]) -> float:
    """S = ln n / mean(Lambda_i), in nats; 0 for one item, NaN for none."""
    if not len(sequence):
        return math.nan
    return math.log(len(sequence)) / float(np.mean(shortest_new(sequence)))


def shortest_new(sequence: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Lambda_i: length of the shortest substring from i on that does not occur within sequence[:i]."""
    if not len(sequence):
        return np.zeros(0, np.int64)
    tree = suffix_tree(sequence)
    position, node = np.arange(len(sequence)), tree.above
    # climb while the parent, too, begins too late for its length: in steps of 2^j, the longest first
    steps = [tree.parent]
    while steps[-1].any():
        steps.append(steps[-1][steps[-1]])
    too_long = tree.depth[node] > position - tree.first[node]
    for step in reversed(steps):
        higher = step[node]
        node = np.where(too_long & (tree.depth[higher] > position - tree.first[higher]), higher, node)
    seen = np.where(too_long, np.maximum(position - tree.first[node], tree.depth[tree.parent[node]]), tree.depth[node])
    return seen + 1


def suffix_tree(sequence: Int[np.ndarray, "n"]) -> SuffixTree:
    """Inner nodes from the suffix array and its longest common prefixes; n >= 1."""
    ranks = prefix_ranks(sequence)
    suffixes = np.argsort(ranks[-1])
    common = common_prefixes(ranks, suffixes)
    return _nodes(suffixes, common)


def prefix_ranks(sequence: Int[np.ndarray, "n"]) -> Ranks:
    """Ranks of the substrings of 1, 2, 4, ... items from each position, shorter ones at the end, until all differ."""
    n = len(sequence)
    ranks = [np.unique(sequence, return_inverse=True)[1].astype(np.int32)]
    while ranks[-1].max() < n - 1:
        half = 1 << (len(ranks) - 1)
        second = np.zeros(n, np.int64)
        second[: n - half] = ranks[-1][half:] + 1  # 0: the sequence ends before
        keys = ranks[-1] * np.int64(n + 1) + second
        ranks.append(np.unique(keys, return_inverse=True)[1].astype(np.int32))
    return ranks


def common_prefixes(ranks: Ranks, suffixes: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Items that each suffix of the sorted ones has in common with the one before it; 0 for the first."""
    before, common = suffixes[:-1], np.zeros(len(suffixes), np.int64)
    for power in reversed(range(len(ranks))):
        rank = np.append(ranks[power], np.int32(-1))  # one of two different suffixes ends first
        equal = rank[before + common[1:]] == rank[suffixes[1:] + common[1:]]
        common[1:][equal] += 1 << power
    return common


def _nodes(suffixes: Int64[np.ndarray, "n"], common: Int64[np.ndarray, "n"]) -> SuffixTree:
    """One pass over the sorted suffixes with the open nodes on a stack, the deepest on top."""
    depth, first, parent, above = [0], [0], [0], []
    stack = [0]
    following = np.append(common[1:], 0).tolist()
    for suffix, shared in zip(suffixes.tolist(), following, strict=True):
        # `shared`: with the next suffix; the top of the stack is what this suffix shares with the one before
        if shared > depth[stack[-1]]:
            stack.append(len(depth))
            depth.append(shared)
            first.append(suffix)
            parent.append(0)
        top = stack[-1]
        above.append(top)
        if suffix < first[top]:
            first[top] = suffix
        while shared < depth[top]:
            stack.pop()
            if shared > depth[stack[-1]]:
                stack.append(len(depth))
                depth.append(shared)
                first.append(first[top])
                parent.append(0)
            parent[top], new_top = stack[-1], stack[-1]
            if first[top] < first[new_top]:
                first[new_top] = first[top]
            top = new_top
    node = np.empty(len(suffixes), np.int64)
    node[suffixes] = above
    return SuffixTree(np.array(depth), np.array(first), np.array(parent), node)
