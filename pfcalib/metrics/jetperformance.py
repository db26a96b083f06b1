"""How well jets are measured, and how many of them come from pile-up, with errors by resamples of
whole events: the jets of an event share its pile-up.

Methods that are given together are held against each other on the same jets and in the same
resamples, so a ratio of two of them has the error of the pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.bootstrap import N_BOOTSTRAP, bootstrap, bootstrap_events
from pfcalib.metrics.response import MIN_COUNT, QUANTILES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """Values of a sample, NaN where nothing is known, and those of resamples of its events."""

    value: FloatArray  # (n,)
    resamples: FloatArray  # (n_resamples, n)

    @property
    def error(self) -> FloatArray:
        """Standard errors, shape (n,)."""
        return np.asarray(np.std(self.resamples, axis=0, ddof=1))


class FoundJets(NamedTuple):
    """What of the hard scattering and what of pile-up a kind of jets finds."""

    pt: FloatArray  # (n_truth,) GeV of the jet of each truth jet, 0 where there is none
    event: IntArray  # (n_truth,) 0 to n_events - 1
    pile_up_pt: FloatArray  # (n_pile_up,) GeV of jets that no truth jet explains
    pile_up_event: IntArray


def half_width(values: ArrayLike) -> FloatArray:
    """Half of the central 68 % interval along the last axis: the core of an angular resolution.

    >>> float(half_width(np.random.default_rng(1).normal(0.0, 0.02, 100_000)).round(3))
    0.02
    """
    low, _, high = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES, axis=-1)
    return np.asarray(0.5 * (high - low))


def measure_in_bins(
    statistic: Callable[[FloatArray], ArrayLike], values: Mapping[str, ArrayLike],
    variable: ArrayLike, event: ArrayLike, edges: ArrayLike, *, rng: np.random.Generator,
    n_bootstrap: int = N_BOOTSTRAP, min_count: int = MIN_COUNT,
) -> dict[str, Resampled]:  # fmt: skip
    """A statistic of several methods in bins [low, high) of another variable.

    Parameters
    ----------
    statistic : callable
        Along the last axis, such as `metrics.response.resolution` of pT over true pT, or
        `half_width` of the distances in eta.
    values : mapping of str to array_like, shape (n_jets,)
        By method, of the same jets.
    variable : array_like, shape (n_jets,)
        Such as the true pT in GeV.
    event : array_like of int, shape (n_jets,)
        Any number that tells the events apart.
    edges : array_like, shape (n_bins + 1,)
        Increasing.
    rng : numpy.random.Generator
    n_bootstrap : int
    min_count : int
        A bin with fewer jets yields NaN.

    Returns
    -------
    dict of Resampled, n = n_bins

    Raises
    ------
    ValueError
        If a value is not finite or the lengths differ.

    Examples
    --------
    >>> response, pt_true = {"pflow": [0.9, 1.1, 1.0, 0.8]}, [20.0, 20.0, 25.0, 35.0]
    >>> found = measure_in_bins(
    ...     lambda values: np.mean(values, axis=-1), response, pt_true, [0, 0, 1, 1],
    ...     [15.0, 30.0, 60.0], rng=np.random.default_rng(1), min_count=1,
    ... )
    >>> found["pflow"].value.tolist()
    [1.0, 0.8]
    """
    table = np.stack([np.asarray(each, dtype=np.float64) for each in values.values()])
    number, bins = np.asarray(event), np.asarray(edges, dtype=np.float64)
    index = np.digitize(np.asarray(variable, dtype=np.float64), bins) - 1
    if not table.shape[1:] == number.shape == index.shape:
        raise ValueError(
            f"values {table.shape[1:]}, event {number.shape}, variable {index.shape}: expected one "
            "shape, (n_jets,)"
        )
    if not np.isfinite(table).all():
        method, jet = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"{list(values)[method]}: value {jet} is not finite")
    found = np.full((1 + n_bootstrap, len(table), bins.size - 1), np.nan)
    for b in range(found.shape[2]):
        inside = index == b
        if np.count_nonzero(inside) >= max(min_count, 1):
            here = table[:, inside]
            found[0, :, b] = statistic(here)
            found[1:, :, b] = bootstrap_events(
                statistic, here, event=number[inside], rng=rng, n_resamples=n_bootstrap
            )
    return {name: Resampled(found[0, m], found[1:, m]) for m, name in enumerate(values)}


def combine(function: Callable[..., FloatArray], *measures: Resampled) -> Resampled:
    """A function of measures, such as the ratio of two methods: paired if they were measured
    together, else as of independent samples.

    >>> one = Resampled(np.array([2.0]), np.array([[1.9], [2.1]]))
    >>> combine(np.divide, one, one).error.tolist()
    [0.0]
    """
    return Resampled(
        function(*(measure.value for measure in measures)),
        function(*(measure.resamples for measure in measures)),
    )


def pile_up_part(resolution: Resampled, without: Resampled, pt: ArrayLike) -> Resampled:
    """What pile-up adds in quadrature to a resolution without it, sqrt(s(mu)^2 - s(0)^2) in GeV,
    with the sign of the difference.

    Parameters
    ----------
    resolution, without : Resampled
        Relative resolution at mu and at 0, in the same bins.
    pt : array_like, shape (n_bins,), GeV
        Of the bins.
    """

    def part(a: FloatArray, b: FloatArray) -> FloatArray:
        difference = a**2 - b**2
        return np.asarray(pt * np.sign(difference) * np.sqrt(np.abs(difference)))

    return combine(part, resolution, without)


def pile_up_jets(
    found: Mapping[str, FoundJets], n_events: int, efficiency: ArrayLike, *,
    rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP,
) -> dict[str, Resampled]:  # fmt: skip
    """Jets of pile-up per event above the cut in pT that keeps a share of the jets of the hard
    scattering; NaN where no cut keeps it, and the error is NaN where none does in a resample.

    Parameters
    ----------
    found : mapping of str to FoundJets
        By method, of the same events.
    n_events : int
        All events, also those without a jet.
    efficiency : array_like, shape (n,)
        Shares of the truth jets, in (0, 1].
    rng : numpy.random.Generator
    n_bootstrap : int

    Returns
    -------
    dict of Resampled, shape (n,)

    Raises
    ------
    ValueError
        If an efficiency lies outside (0, 1].

    Examples
    --------
    >>> jets = FoundJets(np.array([20.0, 30.0]), np.array([0, 1]), np.array([25.0]), np.array([1]))
    >>> found = pile_up_jets({"a": jets}, 2, [0.5, 1.0], rng=np.random.default_rng(1))
    >>> found["a"].value.tolist()
    [0.0, 0.5]
    """
    share = np.asarray(efficiency, dtype=np.float64)
    if not np.all((share > 0.0) & (share <= 1.0)):
        raise ValueError(f"efficiency {share.tolist()}: expected in (0, 1]")
    hardest_first = [_hardest_first(jets) for jets in found.values()]

    def of_events(chosen: IntArray) -> FloatArray:
        times = np.bincount(chosen, minlength=n_events)  # that each event was drawn
        return np.stack([_above_cut(jets, times, share) for jets in hardest_first])

    everything = np.arange(n_events)
    value = of_events(everything)
    drawn = bootstrap(of_events, everything, rng=rng, n_resamples=n_bootstrap)
    return {name: Resampled(value[m], drawn[:, m]) for m, name in enumerate(found)}


def _hardest_first(jets: FoundJets) -> FoundJets:
    hard, soft = np.argsort(-jets.pt), np.argsort(-jets.pile_up_pt)
    return FoundJets(
        jets.pt[hard], jets.event[hard], jets.pile_up_pt[soft], jets.pile_up_event[soft]
    )


def _above_cut(jets: FoundJets, times: IntArray, efficiency: FloatArray) -> FloatArray:
    """Jets of pile-up per event at each efficiency, of jets by falling pT."""
    passed = np.cumsum(times[jets.event])
    if not passed.size or passed[-1] == 0:
        return np.full(efficiency.shape, np.nan)
    cut = jets.pt[np.searchsorted(passed, efficiency * passed[-1] * (1.0 - 1e-12))]
    n_pile_up = np.append(0, np.cumsum(times[jets.pile_up_event]))
    n_above = n_pile_up[np.searchsorted(-jets.pile_up_pt, -cut, side="right")]
    return np.where(cut > 0.0, n_above / times.sum(), np.nan)
