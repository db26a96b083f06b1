"""The steps of the calibration of jets between the subtraction of areas and networks: what is left
of pile-up, the scale by numerical inversion along a spline, and the global sequential calibration
(arXiv:2007.02645).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import QuantileRegressor
from sklearn.preprocessing import SplineTransformer

from pfcalib.calibration.inversion import Inversion
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.particleflow.jetscale import JetScale

FloatArray = NDArray[np.float64]

PUNCH_THROUGH_PT = 50.0  # GeV, from which the last variable of the sequence corrects
N_GRID = 200  # points of the inversion of a spline
FLOOR = 1.0  # GeV, softest pT after a correction for pile-up


def pile_up_slopes(excess: ArrayLike, npv: ArrayLike, mu: ArrayLike) -> FloatArray:
    """How pT less true pT grows with the vertices at a given mu, and with mu at given vertices:
    least squares, shape (2,), GeV a vertex and GeV an interaction.

    Parameters
    ----------
    excess : array_like, shape (n_jets,), GeV
        Of jets in a narrow range of true pT.
    npv, mu : array_like, shape (n_jets,)
    """
    table = np.column_stack([np.ones(np.shape(npv)), npv, mu])
    return np.asarray(np.linalg.lstsq(table, np.asarray(excess), rcond=None)[0][1:])


@dataclass(frozen=True, eq=False)
class Residual:
    """What pile-up leaves behind the subtraction of areas, linear in npv and mu."""

    slopes: FloatArray  # (2,) GeV
    means: FloatArray  # (2,) npv and mu at which nothing is taken, so that the scale stays

    def apply(self, pt: ArrayLike, npv: ArrayLike, mu: ArrayLike) -> FloatArray:
        """Corrected pT in GeV, not below FLOOR."""
        away = np.column_stack([npv, mu]) - self.means
        return np.maximum(np.asarray(pt) - away @ self.slopes, FLOOR)


def fit_residual(pt: ArrayLike, pt_true: ArrayLike, npv: ArrayLike, mu: ArrayLike) -> Residual:
    """Residual correction from jets in a narrow range of true pT in GeV, where pile-up counts."""
    excess = np.asarray(pt, dtype=np.float64) - np.asarray(pt_true, dtype=np.float64)
    means = np.mean(np.column_stack([npv, mu]).astype(np.float64), axis=0)
    return Residual(pile_up_slopes(excess, npv, mu), means)


def fit_spline_scale(
    pt: ArrayLike, pt_true: ArrayLike, eta: ArrayLike, *, eta_edges: Sequence[float],
    n_knots: int = 5,
) -> JetScale:  # fmt: skip
    """The scale that makes the median response one at every true pT: the median of ln(pT / true pT)
    is a quadratic spline of ln(true pT) in each bin of abs(eta), by quantile regression, and read
    backwards.

    Parameters
    ----------
    pt, pt_true : array_like, shape (n_jets,), GeV
        Positive.
    eta : array_like, shape (n_jets,)
    eta_edges : sequence of float
        In abs(eta), rising.
    n_knots : int
        At quantiles of true pT.

    Raises
    ------
    ConfigError
        If the edges do not rise.
    ValidationError
        If a bin has fewer jets than the spline has parameters.
    """
    edges = np.asarray(eta_edges, dtype=np.float64)
    if edges.size < 2 or not np.all(np.diff(edges) > 0.0):
        raise ConfigError(f"jet scale: edges {edges.tolist()}, expected to increase")
    log_pt, log_true = np.log(np.asarray(pt, float)), np.log(np.asarray(pt_true, float))
    place = np.clip(np.digitize(np.abs(eta), edges) - 1, 0, edges.size - 2)
    inversions = []
    for b in range(edges.size - 1):
        here = place == b
        if np.count_nonzero(here) <= n_knots + 2:
            raise ValidationError(f"abs(eta) {edges[b]} to {edges[b + 1]}: {here.sum()} jets")
        spline = SplineTransformer(n_knots=n_knots, degree=2, knots="quantile", include_bias=False)
        table = spline.fit_transform(log_true[here, None])
        fit = QuantileRegressor(quantile=0.5, alpha=0.0, solver="highs")
        fit.fit(table, (log_pt - log_true)[here])
        grid = np.linspace(log_true[here].min(), log_true[here].max(), N_GRID)
        measured = grid + fit.predict(spline.transform(grid[:, None]))
        rising = np.append(True, measured[1:] > np.maximum.accumulate(measured)[:-1])
        inversions.append(Inversion(measured[rising], grid[rising]))
    return JetScale(edges, tuple(inversions))


@dataclass(frozen=True, eq=False)
class Step:
    """One correction of the sequence: a factor of pT against its logarithm and a variable."""

    name: str
    pt_min: float  # GeV, below which it does nothing
    grid: RegularGridInterpolator

    def apply(self, pt: FloatArray, variable: ArrayLike) -> FloatArray:
        """Corrected pT in GeV."""
        place = np.column_stack([np.log(pt), np.asarray(variable, dtype=np.float64)])
        low, high = (np.array([axis[end] for axis in self.grid.grid]) for end in (0, -1))
        factor = self.grid(np.clip(place, low, high))
        return np.where(pt > self.pt_min, pt * factor, pt)


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """How finely a step looks.

    Parameters
    ----------
    n_pt, n_bins : int
        Bins of true pT and of a variable, of like numbers of jets.
    smoothing : float
        Width of the Gaussian over the bins with which they are averaged.
    """

    n_pt: int = 10
    n_bins: int = 10
    smoothing: float = 1.0


def fit_sequence(
    pt: ArrayLike,
    pt_true: ArrayLike,
    variables: Mapping[str, ArrayLike],
    config: SequenceConfig | None = None,
    *,
    pt_min: Mapping[str, float] | None = None,
) -> list[Step]:
    """Corrections one after the other, each fitted to what those before leave.

    A step divides by the median response of jets of like pT and variable, over that of all jets of
    like pT, so that the response at a given pT stays as it was.

    Parameters
    ----------
    pt, pt_true : array_like, shape (n_jets,), GeV
        Jets at their scale.
    variables : mapping of str to array_like, shape (n_jets,)
        In the order of the sequence.
    config : SequenceConfig, optional
    pt_min : mapping of str to float, GeV
        From where the step of a variable acts; 0 by default.
    """
    config = config or SequenceConfig()
    now, truth = np.array(pt, dtype=np.float64), np.asarray(pt_true, dtype=np.float64)
    steps = []
    for name, values in variables.items():
        least = (pt_min or {}).get(name, 0.0)
        used = now > least
        grid = _factors(now[used], truth[used], np.asarray(values, float)[used], config)
        steps.append(Step(name, least, grid))
        now = steps[-1].apply(now, values)
    return steps


def apply_sequence(
    steps: Sequence[Step], pt: ArrayLike, variables: Mapping[str, ArrayLike]
) -> FloatArray:
    """Corrected pT in GeV, shape (n_jets,)."""
    now = np.array(pt, dtype=np.float64)
    for step in steps:
        now = step.apply(now, variables[step.name])
    return now


def _factors(
    pt: FloatArray, pt_true: FloatArray, variable: FloatArray, config: SequenceConfig
) -> RegularGridInterpolator:
    """Grid of the factors of a step; where a bin is empty its neighbours tell, or it is 1."""
    pt_bin, _ = _like(pt_true, config.n_pt)
    x_bin, n_x = _like(variable, config.n_bins)
    n_pt = int(pt_bin.max()) + 1
    count, median = np.zeros((n_pt, n_x)), np.ones((n_pt, n_x))
    response = pt / pt_true
    for i in range(n_pt):
        of_all = np.median(response[pt_bin == i])
        for j in range(n_x):
            here = (pt_bin == i) & (x_bin == j)
            count[i, j] = np.count_nonzero(here)
            if count[i, j]:
                median[i, j] = np.median(response[here]) / of_all
    weight, total = (
        gaussian_filter(table, config.smoothing, mode="nearest")
        for table in (count, count * median)
    )
    known = weight > 1e-9
    smooth = np.where(known, total / np.where(known, weight, 1.0), 1.0)
    axes = tuple(
        np.array([values[place == k].mean() for k in range(n)])
        for values, place, n in ((np.log(pt), pt_bin, n_pt), (variable, x_bin, n_x))
    )
    if n_x == 1:  # the variable is the same everywhere
        axes, smooth = (axes[0], axes[1] + np.array([0.0, 1.0])), np.repeat(smooth, 2, axis=1)
    return RegularGridInterpolator(axes, 1.0 / smooth)


def _like(values: FloatArray, n_bins: int) -> tuple[NDArray[np.int64], int]:
    """Bins of like numbers of jets, none of them empty: place of each value, and their number."""
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]))
    place = np.searchsorted(edges, values, side="right")
    kept, place = np.unique(place, return_inverse=True)
    return place, len(kept)
