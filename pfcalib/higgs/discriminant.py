"""From probabilities of four classes to one discriminant, and what a cut on it is worth.

The significances are those of counting events: s / sqrt(b), and the one of the Asimov data set with
an uncertain background of Cowan, Cranmer, Gross and Vitells (arXiv:1007.1727, and their note on
discovery sensitivity).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError

FloatArray = NDArray[np.float64]


class Counts(NamedTuple):
    """Expected events above a cut."""

    signal: float
    background: float

    @property
    def s_over_root_b(self) -> float:
        """Signal over the square root of the background."""
        return self.signal / np.sqrt(self.background)


def d_hh(p: ArrayLike, fractions: Mapping[int, float]) -> FloatArray:
    """ln(p_HH / sum_i f_i p_i), shape (n,).

    For true probabilities of classes that were equally common in training, and f_i the shares of
    the backgrounds, it is the logarithm of the likelihood ratio of signal and all backgrounds: no
    cut on anything else keeps fewer background events at the same signal (Neyman and Pearson).

    Parameters
    ----------
    p : array_like, shape (n, n_classes)
        The signal in column 0.
    fractions : mapping of int to float
        Of each background column its share of the background; they sum to 1.

    Examples
    --------
    >>> d_hh([[0.5, 0.25, 0.25]], {1: 0.5, 2: 0.5}).round(3).tolist()
    [0.693]

    Raises
    ------
    ConfigError
        If the shares are not of all backgrounds, or do not sum to 1.
    """
    values = np.maximum(np.asarray(p, dtype=np.float64), 1e-30)
    columns = list(range(1, values.shape[1]))
    if sorted(fractions) != columns or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise ConfigError(f"fractions {dict(fractions)}: expected of columns {columns}, of sum 1")
    background = values[:, 1:] @ np.array([fractions[column] for column in columns])
    return np.asarray(np.log(values[:, 0] / background))


def count(d: ArrayLike, is_signal: ArrayLike, weight: ArrayLike, cut: float) -> Counts:
    """Expected events with d >= cut; weights are expected events, arrays of shape (n,)."""
    above, signal = np.asarray(d) >= cut, np.asarray(is_signal, dtype=bool)
    events = np.asarray(weight)
    return Counts(float(events[above & signal].sum()), float(events[above & ~signal].sum()))


def best_cut(
    d: ArrayLike, is_signal: ArrayLike, weight: ArrayLike, *, min_background: float
) -> float:
    """The cut of the largest s / sqrt(b) that leaves at least so much background, in events.

    Without the limit a few simulated events would decide, and s / sqrt(b) means little where less
    than an event is expected.
    """
    order = np.argsort(np.asarray(d))[::-1]
    signal, events = np.asarray(is_signal, dtype=bool)[order], np.asarray(weight)[order]
    s, b = np.cumsum(events * signal), np.cumsum(events * ~signal)
    gain = np.where(b >= min_background, s / np.sqrt(np.maximum(b, 1e-30)), -np.inf)
    if not np.isfinite(gain).any():
        raise ConfigError(f"fewer than min_background = {min_background} events in all")
    return float(np.asarray(d)[order][int(np.argmax(gain))])


def asimov(s: float, b: float, relative: float = 0.0) -> float:
    """Median significance of a signal s over a background b known to a relative error.

    sqrt(2 [(s + b) ln((s + b)(b + v) / (b^2 + (s + b) v)) - b^2 / v ln(1 + v s / (b (b + v)))]),
    v = (relative b)^2; for a small s it is s / sqrt(b + v).

    >>> round(asimov(1.0, 1e4), 4), round(asimov(1.0, 1e4, 0.01), 4)
    (0.01, 0.0071)
    """
    v = (relative * b) ** 2
    if v == 0.0:
        return float(np.sqrt(2.0 * ((s + b) * np.log1p(s / b) - s)))
    first = (s + b) * np.log((s + b) * (b + v) / (b**2 + (s + b) * v))
    return float(np.sqrt(2.0 * (first - b**2 / v * np.log1p(v * s / (b * (b + v))))))


def reliability(
    p: ArrayLike, is_class: ArrayLike, weight: ArrayLike, edges: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean probability, weighted share that is of the class, and its error, in bins of the
    probability, each of shape (n_bins,); NaN where a bin is empty.
    """
    value, label = np.asarray(p, dtype=np.float64), np.asarray(is_class, dtype=np.float64)
    events, bins = np.asarray(weight, dtype=np.float64), np.asarray(edges)
    place = np.digitize(value, bins) - 1
    n = len(bins) - 1
    inside = (place >= 0) & (place < n)

    def total(of: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(place[inside], of[inside], n), dtype=np.float64)

    with np.errstate(invalid="ignore", divide="ignore"):
        weights = total(events)
        share = total(events * label) / weights
        # of a weighted mean; a bin of one class alone gets the error of one more event of another
        spread = total(events**2) / weights**2
        error = np.sqrt(np.maximum(share * (1.0 - share), spread) * spread)
        return total(events * value) / weights, share, error
