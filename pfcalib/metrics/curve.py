"""A value with its error, and such values in bins of another quantity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

FloatArray = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value and its standard error.

    >>> (Estimate(5.0, 0.3) - Estimate(3.0, 0.4)).significance
    4.0
    """

    value: float
    error: float

    def __sub__(self, other: Estimate) -> Estimate:
        """Difference of two estimates whose errors are independent."""
        return Estimate(self.value - other.value, float(np.hypot(self.error, other.error)))

    @property
    def significance(self) -> float:
        """Standard deviations by which the value differs from 0, with its sign; 0 for 0 +- 0."""
        if self.error > 0.0:
            return self.value / self.error
        return float(np.copysign(np.inf, self.value)) if self.value else 0.0

    @property
    def p_value(self) -> float:
        """Two-sided, of a Gaussian."""
        return float(2.0 * norm.sf(abs(self.significance)))

    @classmethod
    def resampled(cls, value: ArrayLike, resamples: ArrayLike) -> Estimate:
        """A value with the spread of its bootstrap resamples, shape (n_resamples,), as error."""
        return cls(float(value), float(np.std(resamples, ddof=1)))  # type: ignore[arg-type]

    @classmethod
    def repeated(cls, estimates: Sequence[Estimate]) -> Estimate:
        """Mean of the estimates of several trainings on the same clusters; their mean error and the
        spread of the trainings are joined in quadrature.

        >>> Estimate.repeated([Estimate(0.9, 0.3), Estimate(1.7, 0.3)]).value
        1.3
        """
        values, errors = np.transpose(estimates)
        if not np.isfinite(values).all():
            return cls(float(values.mean()), float("inf"))
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        return cls(float(values.mean()), float(np.hypot(errors.mean(), spread)))


UNKNOWN = Estimate(np.nan, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A quantity in bins of another one; NaN where nothing is known."""

    edges: FloatArray  # (n_bins + 1,)
    value: FloatArray  # (n_bins,)
    error: FloatArray  # (n_bins,)
    count: NDArray[np.int64] | None = None  # (n_bins,) entries

    @property
    def centres(self) -> FloatArray:
        """Geometric centres of the bins, or the arithmetic ones where an edge is not positive,
        shape (n_bins,).
        """
        low, high = self.edges[:-1], self.edges[1:]
        return np.asarray(np.sqrt(low * high) if np.all(self.edges > 0.0) else 0.5 * (low + high))

    def ratio(self, other: Curve) -> Curve:
        """This over another curve in the same bins, errors taken as independent.

        Raises
        ------
        ValueError
            If the bins differ.
        """
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("two curves with different bins: expected the same edges")
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.value / other.value
            relative = np.hypot(self.error / self.value, other.error / other.value)
        return Curve(self.edges, value, np.abs(value) * relative)

    def distance(self, level: float) -> Curve:
        """abs(value - level) with the same errors."""
        return dataclasses.replace(self, value=np.abs(self.value - level))

    def largest(self, low: float = -np.inf, high: float = np.inf) -> Estimate:
        """The largest known value with its centre in [low, high]; NaN where there is none."""
        inside = (self.centres >= low) & (self.centres <= high) & np.isfinite(self.value)
        if not inside.any():
            return UNKNOWN
        place = int(np.argmax(np.where(inside, self.value, -np.inf)))
        return Estimate(float(self.value[place]), float(self.error[place]))
