"""Least squares without negative amounts, for many spectra that share one model."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST_ROUNDS: Final = 200


def non_negative_least_squares(
    normal: NDArray[np.float64], projected: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve ``min |A x - y|`` with ``x >= 0`` for many `y` at once.

    Columns with the same set of positive amounts are solved together [1]_, by the active-set
    method of Lawson and Hanson [2]_ with all wrong signs of a step changed at once and the safe
    single exchange when that goes in circles.

    Parameters
    ----------
    normal : ndarray, shape (k, k)
        ``A.T @ A``, positive definite.
    projected : ndarray, shape (k, n)
        ``A.T @ y`` of each spectrum.

    Returns
    -------
    ndarray, shape (k, n)
        Amounts, none below 0.

    References
    ----------
    .. [1] Van Benthem, M. H., Keenan, M. R., "Fast algorithm for the solution of large-scale
       non-negativity-constrained least squares problems", J. Chemometrics 18 (2004) 441-450.
    .. [2] Portugal, L. F., Judice, J. J., Vicente, L. N., "A comparison of block pivoting and
       interior-point algorithms for linear least squares problems with nonnegative variables",
       Math. Comp. 63 (1994) 625-643.
    """
    amounts = np.linalg.solve(normal, projected)
    positive = amounts > 0
    open_ = np.flatnonzero(~positive.all(axis=0))
    fewest = np.full(projected.shape[1], normal.shape[0] + 1)
    chances = np.full(projected.shape[1], 3)
    scale = 1e-12 * np.abs(projected).max(initial=0.0)
    for _ in range(_MOST_ROUNDS):
        if not open_.size:
            break
        amounts[:, open_], gradient = _solve(normal, projected[:, open_], positive[:, open_])
        wrong = np.where(positive[:, open_], amounts[:, open_] < 0, gradient > scale)
        count = wrong.sum(axis=0)
        open_, wrong, count = open_[count > 0], wrong[:, count > 0], count[count > 0]
        better = count < fewest[open_]
        fewest[open_] = np.minimum(fewest[open_], count)
        chances[open_] = np.where(better, 3, chances[open_] - 1)
        # Circles end by Murty's rule: change only the last wrong one.
        single = chances[open_] < 0
        last = wrong.shape[0] - 1 - np.argmax(wrong[::-1], axis=0)
        wrong[:, single] = np.arange(wrong.shape[0])[:, None] == last[single]
        positive[:, open_] ^= wrong
    clipped: NDArray[np.float64] = np.maximum(amounts, 0.0)
    return clipped


def _solve(
    normal: NDArray[np.float64], projected: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amounts with those that are not `positive` held at 0, and the gradient there."""
    amounts = np.zeros_like(projected)
    codes, members = np.unique(positive, axis=1, return_inverse=True)
    order = np.argsort(members.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(members.reshape(-1), minlength=codes.shape[1]))
    for code, columns in zip(codes.T, np.split(order, ends[:-1]), strict=True):
        rows = np.flatnonzero(code)
        if rows.size:
            solved = np.linalg.solve(normal[np.ix_(rows, rows)], projected[np.ix_(rows, columns)])
            amounts[np.ix_(rows, columns)] = solved
    return amounts, projected - normal @ amounts
