"""Logistic regression with an L2 penalty along a path of strengths: Newton's method, one basis for all of them.

The problem is scikit-learn's: minimise sum_i w_i loss_i + |coef|^2 / (2 C), the intercept free of the penalty, for two classes with
one logit and for more with one logit a class (softmax). Three things make a grid of probes cheap:

- with fewer rows than columns the solution lies in the span of the rows, so it is fitted in their coordinates;
- the path goes from strong to weak penalties, each fit starting at the last one's solution;
- a Newton step is solved by conjugate gradients in single precision, preconditioned with a Hessian that is factorised seldom (Nocedal &
  Wright, Numerical Optimization, section 7.1). It only says where to go: loss and gradient are in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, qr
from scipy.special import expit, log_expit, log_softmax, softmax

DECREMENT = 1e-7
"""Where a fit ends: g' H^-1 g. A training row's probability is then within half its root, 1.6e-4, over the root of the row's weight."""
NEWTON_STEPS = 100
CONJUGATE_STEPS = 60
SMALL = 400  # columns up to which a Hessian costs less than the conjugate gradients that it saves
STALE = 12  # conjugate gradients after which the next Newton step gets a Hessian of its own


@dataclass
class Basis:
    """Standardised features (n, D), in coordinates (n, r) of which there are no more than rows."""

    columns: np.ndarray  # (n, r + 1) float64: the coordinates, and ones for the intercept
    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    axes: np.ndarray | None  # (D, r) orthonormal; None where the coordinates are the features themselves

    def coefficients(self, solution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a solution (r + 1, J): weight (D, J) and bias (J,) for features as they come, not standardised."""
        coef = solution[:-1] if self.axes is None else self.axes @ solution[:-1]
        weight = coef / self.scale[:, None]
        return weight, solution[-1] - self.mean @ weight

    def solution_near(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The (r + 1, J) that comes nearest to coefficients of other rows: where to start from."""
        coef = weight * self.scale[:, None]
        own = coef if self.axes is None else self.axes.T @ coef
        return np.vstack([own, (bias + self.mean @ weight)[None]])


def basis_of(features: np.ndarray) -> Basis:
    """Standardise (n, D) features on these rows alone; a constant column becomes zero."""
    values = features.astype(np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    values -= mean
    values /= scale
    axes = None
    if len(values) < values.shape[1]:
        axes, triangle = qr(values.T, mode="economic", overwrite_a=True, check_finite=False)
        values = triangle.T
    return Basis(np.column_stack([values, np.ones(len(values))]), mean, scale, axes)


def fit_path(
    basis: Basis, targets: np.ndarray, weights: np.ndarray, strengths: list[float], start: np.ndarray | None = None
) -> list[np.ndarray]:
    """The solutions (r + 1, J), one for each C of `strengths`, which rise.

    Args:
        targets: (n, 1) float 0 or 1, or (n, K) one-hot; every class is there.
        weights: (n,) of the rows, above 0.
        start: (r + 1, J) for the first fit; None: zeros.
    """
    problem = _Problem(basis.columns, targets, weights)
    solution = np.zeros((basis.columns.shape[1], targets.shape[1])) if start is None else start
    solutions = []
    for c in strengths:
        solution = _newton(problem, 1 / c, solution)
        solutions.append(solution)
    return solutions


class _Problem:
    """The weighted log loss, its gradient and its Hessian, as functions of the logits (n, J)."""

    def __init__(self, columns: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> None:
        self.columns, self._targets, self._weights = columns, targets, weights[:, None]
        self._one = targets.shape[1] == 1
        self.rough = columns if columns.shape[1] <= SMALL else columns.astype(np.float32)

    def loss(self, logits: np.ndarray) -> float:
        if self._one:
            return -float((self._weights * (log_expit(logits) - (1 - self._targets) * logits)).sum())
        return -float((self._weights * self._targets * log_softmax(logits, axis=1)).sum())

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) if self._one else softmax(logits, axis=1)

    def residual(self, p: np.ndarray) -> np.ndarray:
        return self._weights * (p - self._targets)

    def curve(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Hessian's product with logits `v`."""
        if self._one:
            return self._weights * p * (1 - p) * v
        pv = p * v
        return self._weights * (pv - p * pv.sum(axis=1, keepdims=True))

    def curvature(self, p: np.ndarray) -> np.ndarray:
        """(n, 1): the Hessian's diagonal, mean over the logits of a row."""
        return self._weights * (p * (1 - p)).mean(axis=1, keepdims=True)


def _newton(problem: _Problem, penalty: float, start: np.ndarray) -> np.ndarray:
    x = problem.columns
    ridge = np.full((x.shape[1], 1), penalty)
    ridge[-1] = 0  # the intercept
    theta, logits = start.copy(), x @ start
    value = problem.loss(logits) + float((ridge * theta**2).sum()) / 2
    solve, refresh = None, True
    for _ in range(NEWTON_STEPS):
        p = problem.probabilities(logits)
        gradient = x.T @ problem.residual(p) + ridge * theta
        if refresh or solve is None:
            solve = _factorised(problem.rough, problem.curvature(p), ridge)
        first = solve(gradient)
        decrement = float((gradient * first).sum())
        if decrement <= DECREMENT:
            break
        step, along, taken = _conjugate(problem, p, ridge, gradient, first, solve, min(0.1, decrement**0.5))
        refresh = taken > STALE or x.shape[1] <= SMALL
        slope, size = float((gradient * step).sum()), 1.0
        while True:
            there = problem.loss(logits - size * along) + float((ridge * (theta - size * step) ** 2).sum()) / 2
            if there <= value - 1e-4 * size * slope or size < 1e-8:
                break
            size, refresh = size / 2, True
        if there >= value:  # no more to gain in float64
            break
        theta, value = theta - size * step, there
        logits = x @ theta
    return theta


def _factorised(x: np.ndarray, curvature: np.ndarray, ridge: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of X' diag(curvature) X + ridge, as a function; in the precision of `x` where that does."""
    root = np.sqrt(curvature)
    for precision in dict.fromkeys((x.dtype.type, np.float64)):
        rows = x.astype(precision, copy=False) * root.astype(precision)
        hessian = rows.T @ rows
        hessian.flat[:: len(hessian) + 1] += ridge[:, 0].astype(precision) + precision(1e-12)
        try:
            factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            continue
        return lambda g, factor=factor, precision=precision: cho_solve(factor, g.astype(precision), check_finite=False).astype(
            float
        )
    diagonal = (curvature * x**2).sum(axis=0)[:, None] + ridge + 1e-12
    return lambda g: g / diagonal


def _conjugate(
    problem: _Problem,
    p: np.ndarray,
    ridge: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    solve: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    """H^-1 gradient by preconditioned conjugate gradients, what it does to the logits, and how many steps that took."""
    x = problem.rough
    residual, direction = gradient.copy(), first
    rz = begun = float((residual * first).sum())
    step, along, taken = np.zeros_like(gradient), np.zeros((len(x), gradient.shape[1])), 0
    while taken < CONJUGATE_STEPS and rz > tolerance**2 * begun:
        moved = x @ direction.astype(x.dtype)
        product = x.T @ problem.curve(p, moved).astype(x.dtype) + ridge * direction
        bend = float((direction * product).sum())
        if bend <= 0:  # rounding: a direction without curvature
            break
        size = rz / bend
        step += size * direction
        along += size * moved
        residual -= size * product
        taken += 1
        preconditioned = solve(residual)
        rz, last = float((residual * preconditioned).sum()), rz
        direction = preconditioned + rz / last * direction
    return step, along, taken
