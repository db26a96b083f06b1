"""Efficiency of triggers at a rate that is given, with errors of cuts and of signals, the same
resamples for all triggers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.bootstrap import N_BOOTSTRAP

F64 = NDArray[np.float64]


class AtRate(NamedTuple):
    """Of one trigger."""

    cut: float  # crossings above it are kept
    cuts: F64  # (n_resamples,) of resamples of minimum bias
    rate: float  # share of minimum bias that is kept

    def efficiency(self, scores: ArrayLike) -> float:
        """Share of a signal that is kept."""
        return float(np.mean(np.asarray(scores) > self.cut))

    def efficiencies(self, scores: ArrayLike, *, seed: int) -> F64:
        """The same of resamples of minimum bias and signal, (n_resamples,): those of one seed and
        one signal hold the same events.
        """
        rng, values = np.random.default_rng(seed), np.asarray(scores)
        found = np.empty(len(self.cuts))
        for i, cut in enumerate(self.cuts):
            weight = rng.poisson(1.0, len(values))
            found[i] = weight[values > cut].sum() / weight.sum()
        return found


def cut_at_rate(
    scores: Mapping[str, ArrayLike], share: float, *, rng: np.random.Generator,
    n_resamples: int = N_BOOTSTRAP,
) -> dict[str, AtRate]:  # fmt: skip
    """The lowest cut of each trigger that keeps no more than a share of minimum bias.

    Resamples weight each crossing with a Poisson number of mean 1; only crossings near the top of
    any trigger are weighted, the sum of all is close to a constant.

    Parameters
    ----------
    scores : mapping of str to array_like, shape (n_crossings,)
        Of each trigger for the same crossings.
    share : float
        Such as 3 kHz over 30 MHz.
    rng : numpy.random.Generator
    n_resamples : int

    Raises
    ------
    ValueError
        If the share is less than one crossing.

    Examples
    --------
    >>> found = cut_at_rate({"a": np.arange(1000)}, 0.01, rng=np.random.default_rng(1))
    >>> found["a"].cut, found["a"].rate
    (989.0, 0.01)
    """
    n = len(np.asarray(next(iter(scores.values()))))
    if share * n < 1.0:
        raise ValueError(f"a share of {share} of {n} crossings is less than one of them")
    n_top = min(n, int(4.0 * share * n) + 100)
    top = {
        name: np.argsort(np.asarray(s), kind="stable")[::-1][:n_top] for name, s in scores.items()
    }
    rows = np.unique(np.concatenate(list(top.values())))
    weights = rng.poisson(1.0, (n_resamples, len(rows)))
    found = {}
    for name, score in scores.items():
        values = np.asarray(score, dtype=np.float64)[top[name]]
        mine = weights[:, np.searchsorted(rows, top[name])]
        cuts = [_cut(values, weight, share * n) for weight in mine]
        cut = _cut(values, np.ones(n_top), share * n)
        found[name] = AtRate(cut, np.array(cuts), float(np.mean(np.asarray(score) > cut)))
    return found


def _cut(values: F64, weight: NDArray[np.integer] | F64, most: float) -> float:
    """Lowest of falling values such that no more than so much weight lies above it."""
    above = np.cumsum(weight) - weight  # before each
    first = np.append(True, values[1:] < values[:-1])  # of those that are the same
    allowed = np.flatnonzero(first & (above <= most + 1e-9))
    return float(values[allowed[-1]])
