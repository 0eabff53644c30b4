"""Which parameters of a fitted law its runs leave open: exactly, or in too many draws of the bootstrap.

A block that the runs cannot tell from a straight line, or from a step, fits as well with any exponent towards that
limit, and its weight grows or shrinks to match; an interval of either would show where the search ends.
"""

import numpy as np
from jaxtyping import Float

from wukong_jax.performance_law.law import Law
from wukong_jax.performance_law.problem import Problem
from wukong_jax.performance_law.terms import Term
from wukong_jax.scaling.variable_projection import Solution, unidentified


def undetermined(
    problem: Problem, solution: Solution, draws: Solution, level: float
) -> tuple[tuple[str, ...], list[str]]:
    """Names of the parameters without a value of their own, and why, in sentences.

    Those along which the solution can move without changing a prediction; and those of a term whose exponent, in more
    of the draws than lie beyond one end of an interval of `level`, is at the end of its search or of the other sign.
    """
    law, rare = problem.law, (1 - level) / 2
    names = set(unidentified(problem.model, solution.nonlinear[0], solution.linear[0]))
    notes = []
    fitted, drawn = (law.split(found.nonlinear, found.linear) for found in (solution, draws))
    for (term, exponent, (weight, *_)), (_, exponents, (weights, *_)) in zip(
        (part for part in fitted if part[0].exponent), (part for part in drawn if part[0].exponent), strict=True
    ):
        both = " and ".join(_own(term))
        bent = weights != 0
        open_draws = bent & (term.at_limit(exponents) | (np.sign(exponents) != np.sign(exponent)))
        if weight[0] == 0:
            notes.append(f"{term.coefficients[0]} is 0, so that {term.exponent} has no effect")
        elif term.at_limit(exponent)[0]:
            names |= {*_own(term), *_constants(law, term, exponent, exponent, rare)}
            notes.append(
                f"the {term.variable} term is at its limit, {term.limit(float(exponent[0]))}: {both} have no value of "
                "their own"
            )
        elif open_draws.mean() > rare:
            names |= {*_own(term), *_constants(law, term, exponent, exponents[bent], rare)}
            notes.append(
                f"in {open_draws.mean():.0%} of the draws the {term.variable} term is a straight line in the logarithm "
                f"or a step, or its exponent has the other sign: {both} are not determined, which says nothing "
                "against the curve"
            )
        elif (open_draws | ~bent).mean() > rare:
            names.add(str(term.exponent))
            notes.append(
                f"in {1 - bent.mean():.0%} of the draws {term.coefficients[0]} is 0, so that {term.exponent} is not "
                "determined"
            )
    return tuple(name for name in law.parameters if name in names), notes


def _own(term: Term) -> tuple[str, ...]:
    return (str(term.exponent), *term.coefficients)


def _constants(
    law: Law, term: Term, exponent: Float[np.ndarray, "1"], others: Float[np.ndarray, "fits"], rare: float
) -> tuple[str, ...]:
    """The constants, where the weight grows without end as the curve straightens: they make up for it."""
    straight = term.straight(others) | (np.sign(others) != np.sign(exponent))
    return law.constants if term.grows_straight and straight.mean() > rare else ()
