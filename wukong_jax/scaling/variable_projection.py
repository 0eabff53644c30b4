"""Variable projection: least squares where all but a few parameters enter linearly.

    minimise over t, c:  sum_i w_i (y_i - sum_j c_j phi_j(t)_i)^2,   c_j >= 0 where asked for

The coefficients c are solved exactly for each t, so that only the nonlinear parameters t (exponents) are searched: all
of a dense grid, then finer and finer around its best cell. No start is chosen, and many problems of one design (other
targets or weights: a bootstrap) are solved together.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

Design = Callable[[Float[np.ndarray, "candidates nonlinear"]], Float[np.ndarray, "candidates columns points"]]
Solver = Callable[
    [
        Float[np.ndarray, "*candidates columns points"],
        Float[np.ndarray, "*problems points"],
        Float[np.ndarray, "*problems points"] | None,
    ],
    tuple[Float[np.ndarray, "*both columns"], Float[np.ndarray, "*both"]],
]
"""Coefficients and objective of designs, targets and weights whose leading axes broadcast."""

RANK_TOLERANCE = 1e-10
"""A column whose part outside the span of those before it is shorter than this share of it counts as dependent."""
CHUNK = 3_000_000
"""Array elements that a step of the grid search may hold."""
BASINS = 16
"""Local minima of the grid that are looked into."""
ROUNDS = 30
"""Refinements of the grid's best cell: each halves it at most, so 2^-30 of a cell is the best that is reached."""


@dataclasses.dataclass(frozen=True)
class Separable:
    """A model y = sum_j c_j phi_j(t): its design, the grid of each nonlinear parameter, the signs of coefficients."""

    design: Design
    axes: tuple[Float[np.ndarray, "_"], ...]
    """Increasing values of each nonlinear parameter; the product of them is searched."""
    nonlinear: tuple[str, ...]
    linear: tuple[str, ...]
    nonnegative: tuple[bool, ...]
    """Whether each coefficient must be >= 0."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """The best parameters of every problem; `objective` is the weighted sum of squares or the solver's own."""

    nonlinear: Float[np.ndarray, "problems nonlinear"]
    linear: Float[np.ndarray, "problems columns"]
    objective: Float[np.ndarray, "problems"]
    at_bound: Bool[np.ndarray, "problems nonlinear"]
    """Whether the optimum is the first or last value of the axis, so that it may lie beyond."""


def least_squares(nonnegative: tuple[bool, ...]) -> Solver:
    """The solver of weighted least squares with the given signs.

    The optimum under c_j >= 0 is the free optimum of the columns that it uses, so all sets of columns that may be zero
    are tried: exact, and cheap for the handful of columns of a law.
    """

    def solve(
        design: Float[np.ndarray, "*candidates columns points"],
        targets: Float[np.ndarray, "*problems points"],
        weights: Float[np.ndarray, "*problems points"] | None,
    ) -> tuple[Float[np.ndarray, "*both columns"], Float[np.ndarray, "*both"]]:
        if weights is not None:
            root = np.sqrt(weights)
            design, targets = design * root[..., None, :], targets * root
        shape = np.broadcast_shapes(design.shape[:-2], targets.shape[:-1])
        best = np.full(shape, np.inf)
        coefficients = np.zeros((*shape, len(nonnegative)))
        for columns in _supports(nonnegative):
            found, residual = _free_least_squares([design[..., column, :] for column in columns], targets)
            feasible = np.ones(shape, bool)
            for column, value in zip(columns, found, strict=True):
                feasible &= (value >= 0) | (not nonnegative[column])
            squares = np.einsum("...n,...n->...", residual, residual)
            better = feasible & (squares < best)
            best = np.where(better, squares, best)
            coefficients[better] = 0.0
            for column, value in zip(columns, found, strict=True):
                coefficients[..., column] = np.where(better, value, coefficients[..., column])
        return coefficients, best

    return solve


def search(
    model: Separable,
    targets: Float[np.ndarray, "problems points"],
    weights: Float[np.ndarray, "problems points"] | None = None,
    *,
    solver: Solver | None = None,
    starts: Float[np.ndarray, "problems nonlinear"] | None = None,
    rounds: int = ROUNDS,
) -> Solution:
    """The optimum of every problem; with `starts` only what lies around them is searched, not the whole grid."""
    if starts is None:
        centre = _best_of_grid(model, targets, weights, solver)
    else:
        centre = np.empty_like(starts)
        for k, axis in enumerate(model.axes):
            centre[:, k] = np.interp(starts[:, k], axis, np.arange(len(axis)))
    return _finish(model, targets, weights, solver, centre, rounds)


def search_basins(
    model: Separable, targets: Float[np.ndarray, "points"], weights: Float[np.ndarray, "points"] | None = None
) -> Solution:
    """The optimum of one problem, refined from all local minima of the grid (the `BASINS` lowest of them).

    For exact or nearly exact data: the grid's best place can lie in a basin whose bottom is not the lowest.
    """
    root = np.ones_like(targets) if weights is None else np.sqrt(weights)
    places = _places(model)
    rows = max(1, CHUNK // ((len(model.linear) + 1) * len(targets)))
    objective = np.concatenate(
        [
            _squares_of_all(
                model.design(_values(model, places[start : start + rows])) * root,
                (targets * root)[None],
                model.nonnegative,
            )[:, 0]
            for start in range(0, len(places), rows)
        ]
    )
    grid = np.pad(objective.reshape([len(axis) for axis in model.axes]), 1, constant_values=np.inf)
    inner = grid[(slice(1, -1),) * len(model.axes)]
    lowest = np.ones(inner.shape, bool)
    for shift in itertools.product((-1, 0, 1), repeat=len(model.axes)):
        around = tuple(slice(1 + step, size - 1 + step) for step, size in zip(shift, grid.shape, strict=True))
        lowest &= inner <= grid[around]
    minima = np.flatnonzero(lowest)
    minima = minima[np.argsort(objective[minima], kind="stable")][:BASINS]
    copies = (len(minima), 1)
    share = None if weights is None else np.tile(weights, copies)
    found = _finish(model, np.tile(targets, copies), share, None, places[minima], ROUNDS)
    best = [int(np.argmin(found.objective))]
    return Solution(found.nonlinear[best], found.linear[best], found.objective[best], found.at_bound[best])


def search_without_each(
    model: Separable,
    targets: Float[np.ndarray, "points"],
    groups: Int[np.ndarray, "points"],
    *,
    rounds: int = ROUNDS,
) -> Solution:
    """The optimum without the points of group 0, of group 1 and so on: every refit of a leave-one-out test.

    The same as `search` with weights 0 and 1, but on the grid all refits share one factorisation: without the rows g of
    an orthonormal basis Q, with residuals r, the sum of squares is less by r_g' (I - Q_g Q_g')^-1 r_g.
    """
    weights = (groups[None] != np.arange(groups.max() + 1)[:, None]).astype(float)
    centre = _lowest_place(
        model, lambda design: _squares_without_each(design, targets, groups, model.nonnegative), len(targets)
    )
    return _finish(model, np.tile(targets, (len(weights), 1)), weights, None, centre, rounds)


def unidentified(
    model: Separable,
    nonlinear: Float[np.ndarray, "nonlinear"],
    linear: Float[np.ndarray, "columns"],
    tolerance: float = 1e-7,
) -> tuple[str, ...]:
    """Names of the parameters that can be changed together without changing a prediction, at this solution.

    They are those of the null space of the Jacobian, its columns scaled to length 1, by singular values; no ridge hides
    them. A coefficient of 0 leaves its exponent without effect, and so unidentified.
    """
    design = model.design(nonlinear[None])[0]
    columns = []
    for k, value in enumerate(nonlinear):
        step = np.zeros_like(nonlinear)
        step[k] = 1e-5 * max(abs(value), 1e-3)
        upper, lower = model.design(np.stack([nonlinear + step, nonlinear - step]))
        columns.append(linear @ (upper - lower) / (2 * step[k]))
    jacobian = np.stack([*columns, *design], axis=1)
    lengths = np.linalg.norm(jacobian, axis=0)
    names = (*model.nonlinear, *model.linear)
    silent = lengths <= tolerance * lengths.max()
    kept = np.flatnonzero(~silent)
    _, singular, directions = np.linalg.svd(jacobian[:, kept] / lengths[kept], full_matrices=len(jacobian) < len(kept))
    singular = np.concatenate([singular, np.zeros(len(kept) - len(singular))])
    null = directions[singular <= tolerance * singular[0]]
    loose = {names[kept[i]] for i in np.flatnonzero(np.abs(null).max(axis=0, initial=0.0) > 1e-3)}
    return tuple(name for name, quiet in zip(names, silent, strict=True) if quiet or name in loose)


def _finish(
    model: Separable,
    targets: Float[np.ndarray, "problems points"],
    weights: Float[np.ndarray, "problems points"] | None,
    solver: Solver | None,
    centre: Float[np.ndarray, "problems nonlinear"],
    rounds: int,
) -> Solution:
    """The optimum of every problem around its place on the grid."""
    solve = solver or least_squares(model.nonnegative)
    ends = np.array([len(axis) - 1.0 for axis in model.axes])
    if model.axes:
        # so many problems at a time that memory is bounded
        size = max(1, CHUNK // (3 ** len(model.axes) * 3 * len(model.linear) * targets.shape[1]))
        parts = [slice(start, start + size) for start in range(0, len(targets), size)]
        centre = np.concatenate(
            [
                _refine(model, targets[part], None if weights is None else weights[part], solve, centre[part], rounds)
                for part in parts
            ]
        )
    values = _values(model, centre)
    linear, objective = solve(model.design(values), targets, weights)
    return Solution(values, linear, objective, (centre < 1e-3) | (centre > ends - 1e-3))


def _supports(nonnegative: tuple[bool, ...]) -> Iterator[list[int]]:
    for used in itertools.product((True, False), repeat=sum(nonnegative)):
        choice = iter(used)
        yield [column for column, signed in enumerate(nonnegative) if not signed or next(choice)]


def _free_least_squares(
    columns: list[np.ndarray], targets: np.ndarray
) -> tuple[list[np.ndarray], Float[np.ndarray, "*both points"]]:
    """Coefficients and residual by Gram-Schmidt; a dependent column gets the coefficient 0."""
    directions, triangle = _orthonormal(columns)
    residual = targets
    shares = []
    for direction in directions:
        share = np.einsum("...n,...n->...", direction, residual)
        residual = residual - share[..., None] * direction
        shares.append(share)
    return _coefficients(triangle, shares), residual


def _orthonormal(columns: list[np.ndarray]) -> tuple[list[np.ndarray], dict[tuple[int, int], np.ndarray]]:
    """Q and R of the columns by Gram-Schmidt, twice for accuracy; a dependent column: 0 in Q, infinite in R."""
    directions: list[np.ndarray] = []
    triangle: dict[tuple[int, int], np.ndarray] = {}
    for j, column in enumerate(columns):
        rest = column
        for _ in range(2):
            for i, direction in enumerate(directions):
                share = np.einsum("...n,...n->...", direction, rest)
                triangle[i, j] = triangle.get((i, j), 0.0) + share
                rest = rest - share[..., None] * direction
        length = np.sqrt(np.einsum("...n,...n->...", rest, rest))
        whole = np.sqrt(np.einsum("...n,...n->...", column, column))
        independent = length > RANK_TOLERANCE * whole
        triangle[j, j] = np.where(independent, length, np.inf)
        directions.append(np.where(independent[..., None], rest, 0.0) / np.where(independent, length, 1.0)[..., None])
    return directions, triangle


def _coefficients(triangle: dict[tuple[int, int], np.ndarray], shares: list[np.ndarray]) -> list[np.ndarray]:
    """Solve R c = Q' y from the last column on."""
    found: list[np.ndarray] = [np.zeros(())] * len(shares)
    for j in reversed(range(len(shares))):
        above = shares[j]
        for later in range(j + 1, len(shares)):
            above = above - triangle[j, later] * found[later]
        found[j] = above / triangle[j, j]
    return found


def _squares_of_all(
    design: Float[np.ndarray, "candidates columns points"],
    targets: Float[np.ndarray, "problems points"],
    nonnegative: tuple[bool, ...],
) -> Float[np.ndarray, "candidates problems"]:
    """Sums of squares of every candidate and problem, as |y|^2 - |Q' y|^2: one matrix product a column.

    Digits below 1e-16 |y|^2 are lost, which matters to no grid; the refinement takes the residual itself.
    """
    total = np.sum(targets**2, axis=1)
    best = np.full((len(design), len(targets)), np.inf)
    for columns in _supports(nonnegative):
        directions, triangle = _orthonormal([design[:, column] for column in columns])
        shares = [direction @ targets.T for direction in directions]
        squares = total - sum(share**2 for share in shares)
        if any(nonnegative[column] for column in columns):
            found = _coefficients({place: value[:, None] for place, value in triangle.items()}, shares)
            for column, value in zip(columns, found, strict=True):
                if nonnegative[column]:
                    squares = np.where(value >= 0, squares, np.inf)
        best = np.minimum(best, squares)
    return best


def _squares_without_each(
    design: Float[np.ndarray, "candidates columns points"],
    targets: Float[np.ndarray, "points"],
    groups: Int[np.ndarray, "points"],
    nonnegative: tuple[bool, ...],
) -> Float[np.ndarray, "candidates groups"]:
    """Sums of squares of every candidate without the points of each group; infinite where those decide a column."""
    best = np.full((len(design), groups.max() + 1), np.inf)
    for columns in _supports(nonnegative):
        directions, triangle = _orthonormal([design[:, column] for column in columns])
        basis = np.stack(directions, axis=1) if columns else np.zeros((len(design), 0, len(targets)))
        shares = basis @ targets
        residual = targets - np.einsum("kc,kcn->kn", shares, basis)
        whole = np.einsum("kn,kn->k", residual, residual)
        for group in range(best.shape[1]):
            rows = np.flatnonzero(groups == group)
            part, rest = basis[:, :, rows], residual[:, rows]
            left = np.eye(len(rows)) - np.einsum("kcm,kcn->kmn", part, part)
            decides = np.linalg.det(left) < RANK_TOLERANCE
            left[decides] = np.eye(len(rows))
            error = np.linalg.solve(left, rest[..., None])[..., 0]
            squares = np.where(decides, np.inf, whole - np.einsum("km,km->k", rest, error))
            without = shares - np.einsum("kcm,km->kc", part, error)
            for column, value in zip(columns, _coefficients(triangle, list(without.T)), strict=True):
                if nonnegative[column]:
                    squares = np.where(value >= 0, squares, np.inf)
            best[:, group] = np.minimum(best[:, group], squares)
    return best


def _values(
    model: Separable, places: Float[np.ndarray, "problems nonlinear"]
) -> Float[np.ndarray, "problems nonlinear"]:
    """Parameters at fractional places of the axes."""
    values = np.empty_like(places)
    for k, axis in enumerate(model.axes):
        values[:, k] = np.interp(places[:, k], np.arange(len(axis)), axis)
    return values


def _places(model: Separable) -> Float[np.ndarray, "grid nonlinear"]:
    return np.array(list(itertools.product(*(range(len(axis)) for axis in model.axes))), float)


def _lowest_place(
    model: Separable,
    objective: Callable[[Float[np.ndarray, "candidates columns points"]], Float[np.ndarray, "candidates problems"]],
    width: int,
) -> Float[np.ndarray, "problems nonlinear"]:
    """The grid's place of each problem's lowest objective, so many at a time that `width` numbers a column fit."""
    places = _places(model)
    lowest, best = np.full(1, np.inf), np.zeros(1, int)
    rows = max(1, CHUNK // ((len(model.linear) + 1) * width))
    for start in range(0, len(places), rows):
        values = objective(model.design(_values(model, places[start : start + rows])))
        winner = np.argmin(values, axis=0)
        found = values[winner, np.arange(values.shape[1])]
        best = np.where(found < lowest, start + winner, best)
        lowest = np.minimum(lowest, found)
    return places[best]


def _best_of_grid(
    model: Separable, targets: np.ndarray, weights: np.ndarray | None, solver: Solver | None
) -> Float[np.ndarray, "problems nonlinear"]:
    """The grid's best place of every problem; without weights and solver all problems share one factorisation."""
    if not model.axes:  # nothing to choose from
        return np.zeros((len(targets), 0))
    if weights is None and solver is None:
        return _lowest_place(
            model, lambda design: _squares_of_all(design, targets, model.nonnegative), max(targets.shape)
        )
    places = _places(model)
    solve = solver or least_squares(model.nonnegative)
    design = model.design(_values(model, places))
    size = max(1, CHUNK // (len(places) * targets.shape[1]))
    parts = []
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        share = None if weights is None else weights[None, part]
        _, objective = solve(design[:, None], targets[None, part], share)
        parts.append(np.argmin(objective, axis=0))
    return places[np.concatenate(parts)]


def _refine(
    model: Separable,
    targets: np.ndarray,
    weights: np.ndarray | None,
    solve: Solver,
    centre: Float[np.ndarray, "problems nonlinear"],
    rounds: int,
) -> Float[np.ndarray, "problems nonlinear"]:
    """Look at a grid around each centre, go to its best place; halve the grid if that lies inside, else double it."""
    count = centre.shape[1]
    offsets = np.array(list(itertools.product(np.linspace(-1, 1, 7 if count == 1 else 5), repeat=count)))
    ends = np.array([len(axis) - 1.0 for axis in model.axes])
    half = np.ones_like(centre)
    share = None if weights is None else weights[:, None]
    for _ in range(rounds):
        places = np.clip(centre[:, None] + half[:, None] * offsets, 0.0, ends)
        design = model.design(_values(model, places.reshape(-1, count)))
        design = design.reshape(len(centre), len(offsets), *design.shape[1:])
        _, objective = solve(design, targets[:, None], share)
        best = np.argmin(objective, axis=1)
        centre = places[np.arange(len(places)), best]
        half = np.where(np.abs(offsets[best]) < 1.0, half / 2, 2 * half)
    return centre
