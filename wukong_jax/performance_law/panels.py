"""Fits with a constant for each panel, solved without these columns: they are means of what the others leave.

With c_p free, min over c_p of sum_i w_i (y_i - c_p(i) - sum_j b_j x_ij)^2 is the sum of squares of y and x_j less their
weighted means within each panel (Frisch and Waugh), so that many panels cost no more than one.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from wukong_jax.scaling.variable_projection import RANK_TOLERANCE, Separable, Solution, Solver, least_squares, search

Weights = Float[np.ndarray, "*problems points"] | None


@dataclasses.dataclass(frozen=True)
class Panels:
    """A model whose first columns are the panels' constants, and the panel of each point."""

    model: Separable
    member: Float[np.ndarray, "points panels"]
    """1 where a point belongs to a panel."""

    @classmethod
    def of(cls, model: Separable, panel: Int[np.ndarray, "points"], panels: int) -> "Panels":
        """Of points that belong to the panels of these numbers."""
        return cls(model, (panel[:, None] == np.arange(panels)).astype(float))

    @property
    def count(self) -> int:
        """How many panels there are."""
        return self.member.shape[1]

    def means(self, values: Float[np.ndarray, "*shape points"], weights: Weights) -> Float[np.ndarray, "*both panels"]:
        """Weighted means within each panel; 0 in one whose points all have the weight 0."""
        if weights is None:
            return values @ (self.member / self.member.sum(axis=0))
        total = weights @ self.member
        return (values * weights) @ self.member / np.where(total > 0, total, 1.0)

    def centred(
        self, values: Float[np.ndarray, "*shape points"], weights: Weights
    ) -> Float[np.ndarray, "*both points"]:
        """The values less their means, and 0 where nothing but rounding errors would be left of them."""
        rest = values - self.means(values, weights) @ self.member.T
        length, whole = (np.sqrt(np.einsum("...n,...n->...", one, one)) for one in (rest, values))
        return np.where((length > RANK_TOLERANCE * whole)[..., None], rest, 0.0)

    def search(
        self,
        targets: Float[np.ndarray, "problems points"],
        starts: Float[np.ndarray, "problems nonlinear"] | None,
        rounds: int,
    ) -> Solution:
        """The same as `search` of the model."""
        model, count = self.model, self.count
        inner = dataclasses.replace(
            model,
            design=lambda values: self.centred(model.design(values)[:, count:], None),
            linear=model.linear[count:],
            nonnegative=model.nonnegative[count:],
        )
        found = search(inner, self.centred(targets, None), starts=starts, rounds=rounds)
        columns = self.means(model.design(found.nonlinear)[:, count:], None)
        constants = self.means(targets, None) - np.einsum("kc,kcp->kp", found.linear, columns)
        return dataclasses.replace(found, linear=np.concatenate([constants, found.linear], axis=1))

    @property
    def solver(self) -> Solver:
        """The solver of the model's coefficients, for weighted problems."""
        free = least_squares(self.model.nonnegative[self.count :])

        def solve(
            design: Float[np.ndarray, "*candidates columns points"],
            targets: Float[np.ndarray, "*problems points"],
            weights: Weights,
        ) -> tuple[Float[np.ndarray, "*both columns"], Float[np.ndarray, "*both"]]:
            columns, share = design[..., self.count :, :], None if weights is None else weights[..., None, :]
            found, objective = free(self.centred(columns, share), self.centred(targets, weights), weights)
            means = self.means(columns, share)
            constants = self.means(targets, weights) - np.einsum("...c,...cp->...p", found, means)
            return np.concatenate([constants, found], axis=-1), objective

        return solve
