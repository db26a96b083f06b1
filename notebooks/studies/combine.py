"""A classifier and two regressors as one calibration of clusters whose particle is not known: by a
cut on p_em, or weighted by it.

    e = combine_soft(p_em, e_neutral, e_charged)

e_neutral and e_charged are the energies of one and the same cluster if it was made by a neutral or
by a charged pion, from regressors that have learnt on one species each (ATL-PHYS-PUB-2020-018,
section 6). `oracle` knows the species: what the regressors can reach at best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import MIN_COUNT, Mask, ResponseCurves, response_curve, species_masks

SCALES = ("log", "linear")
MIXED = "mixed"  # neutral and charged clusters together, as they come
N_BOOTSTRAP = 100

FloatArray = NDArray[np.float64]


class Merit(NamedTuple):
    """A calibration in two numbers: means over the bins of ln(true energy), so that every decade
    counts alike.
    """

    resolution: Estimate  # of IQR / (2 median)
    bias: Estimate  # of abs(median - 1)


class CutScan(NamedTuple):
    """What each cut on p_em leads to."""

    cuts: FloatArray  # (n_cuts,)
    # em_as_em, em_as_had, had_as_had, had_as_em, accuracy, each (n_cuts,)
    rates: dict[str, FloatArray]
    merits: dict[str, tuple[Merit, ...]]  # of `combine_hard` for pi0, pic and mixed, one a cut

    @property
    def best(self) -> float:
        """Cut with the best resolution of the mixed clusters; their median can still be put right
        by an inversion.
        """
        return float(
            self.cuts[int(np.nanargmin([merit.resolution.value for merit in self.merits[MIXED]]))]
        )

    @property
    def resolutions(self) -> dict[str, list[Estimate]]:
        """Mean resolution at each cut, by species."""
        return {
            name: [merit.resolution for merit in merits] for name, merits in self.merits.items()
        }


def mixed_masks(is_em: ArrayLike) -> dict[str, Mask]:
    """Masks of each species and of all clusters by the names of metrics.

    >>> list(mixed_masks([True, False]))
    ['pi0', 'pic', 'mixed']
    """
    masks = species_masks(is_em)
    return {**masks, MIXED: np.ones(len(masks["pi0"]), dtype=np.bool_)}


def combine_hard(
    p_em: ArrayLike, e_neutral: ArrayLike, e_charged: ArrayLike, cut: float = 0.5
) -> FloatArray:
    """Energy of the neutral regressor where p_em >= cut, else that of the charged one.

    Parameters
    ----------
    p_em : array_like, shape (n_clusters,)
        Probability of a neutral pion.
    e_neutral, e_charged : array_like, shape (n_clusters,), GeV
    cut : float

    Raises
    ------
    ValidationError
        If shapes differ, p_em is no probability or an energy is not positive and finite; the
        cluster is named.

    Examples
    --------
    >>> combine_hard([0.9, 0.2], [1.0, 2.0], [1.5, 3.0]).tolist()
    [1.0, 3.0]
    """
    p, neutral, charged = _checked(p_em, e_neutral, e_charged)
    return np.where(p >= cut, neutral, charged)


def combine_soft(
    p_em: ArrayLike, e_neutral: ArrayLike, e_charged: ArrayLike, *, scale: str = "log"
) -> FloatArray:
    """Mean of both energies weighted by the probability of each species.

    The mean is taken in ln E by default. The regressors learn ln E and resolve it alike for both
    species, so this mean is what least squares would give there: E = e_neutral^p e_charged^(1 - p).
    The mean in E lies above it, by p (1 - p) / 2 times the square of ln(e_neutral / e_charged): one
    per cent for a cluster that is in doubt and 30 % between both energies.

    Parameters
    ----------
    p_em, e_neutral, e_charged : array_like, shape (n_clusters,)
        As of `combine_hard`, which also says what is refused.
    scale : str
        ``log`` or ``linear``: where the mean is taken.

    Raises
    ------
    ConfigError
        If there is no such scale.

    Examples
    --------
    >>> combine_soft([0.5, 1.0], [1.0, 2.0], [4.0, 3.0]).tolist()
    [2.0, 2.0]
    >>> combine_soft([0.5], [1.0], [4.0], scale="linear").tolist()
    [2.5]
    """
    if scale not in SCALES:
        raise ConfigError(f"combine_soft: scale = {scale!r}, expected one of {', '.join(SCALES)}")
    p, neutral, charged = _checked(p_em, e_neutral, e_charged)
    if scale == "linear":
        return np.asarray(p * neutral + (1.0 - p) * charged)
    return np.asarray(np.exp(p * np.log(neutral) + (1.0 - p) * np.log(charged)))


def oracle(is_em: ArrayLike, e_neutral: ArrayLike, e_charged: ArrayLike) -> FloatArray:
    """Energy of the regressor of the true species, shape (n_clusters,), GeV.

    >>> oracle([True, False], [1.0, 2.0], [1.5, 3.0]).tolist()
    [1.0, 3.0]
    """
    return combine_hard(np.asarray(is_em, dtype=np.bool_), e_neutral, e_charged)


def merit_of(curve: ResponseCurves) -> Merit:
    """Means of a curve over the bins that have enough clusters; NaN if none has."""
    known = np.isfinite(curve.resolution.value)
    n = int(known.sum())
    if n == 0:
        return Merit(Estimate(np.nan, np.nan), Estimate(np.nan, np.nan))
    return Merit(
        *(
            Estimate(
                float(c.value[known].mean()), float(np.sqrt(np.sum(c.error[known] ** 2)) / n)
            )
            for c in (curve.resolution, curve.median.distance(1.0))
        )
    )


def measure_merit(
    e_pred: ArrayLike,
    e_true: ArrayLike,
    edges: ArrayLike,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = N_BOOTSTRAP,
    min_count: int = MIN_COUNT,
) -> Merit:
    """Merit of a calibration; parameters and errors as of
    `pfcalib.metrics.response.response_curve`, edges of equal width in ln E.
    """
    return merit_of(
        response_curve(e_pred, e_true, edges, min_count=min_count, n_bootstrap=n_bootstrap, rng=rng)
    )


def scan_cut(
    p_em: ArrayLike, is_em: ArrayLike, e_neutral: ArrayLike, e_charged: ArrayLike, e_true: ArrayLike, cuts: ArrayLike, *,
    edges: ArrayLike, rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP, min_count: int = MIN_COUNT,
) -> CutScan:  # fmt: skip
    """Rates and merits of `combine_hard` at each cut, on clusters that neither training nor test
    holds: those of the validation split.

    The merits of two cuts share their clusters, so their difference has a smaller error than
    either.

    Parameters
    ----------
    p_em, e_neutral, e_charged : array_like, shape (n_clusters,)
        As of `combine_hard`.
    is_em : array_like of bool, shape (n_clusters,)
        True for neutral pions.
    e_true : array_like, shape (n_clusters,), GeV
    cuts : array_like, shape (n_cuts,)
    edges : array_like, shape (n_bins + 1,), GeV
        Bins of true energy, of equal width in the logarithm.
    rng, n_bootstrap, min_count
        As of `pfcalib.metrics.response.response_curve`.

    Raises
    ------
    ValidationError
        If a species is missing or no bin holds min_count clusters, or as `combine_hard`.
    """
    p, neutral, charged = _checked(p_em, e_neutral, e_charged)
    em, truth, places = (
        np.asarray(is_em, dtype=np.bool_),
        np.asarray(e_true, dtype=np.float64),
        np.asarray(cuts, dtype=np.float64),
    )
    masks = mixed_masks(em)
    options: dict[str, Any] = {"rng": rng, "n_bootstrap": n_bootstrap, "min_count": min_count}
    merits: dict[str, list[Merit]] = {name: [] for name in masks}
    for cut in places:
        energy = np.where(p >= cut, neutral, charged)
        for name, mask in masks.items():
            merits[name].append(measure_merit(energy[mask], truth[mask], edges, **options))
    if not np.isfinite([merit.resolution.value for merit in merits[MIXED]]).any():
        raise ValidationError(
            f"no bin of true energy holds {min_count} clusters: nothing to choose a cut by"
        )
    return CutScan(
        places,
        outcome_rates(p, em, places),
        {name: tuple(values) for name, values in merits.items()},
    )


def outcome_rates(p_em: ArrayLike, is_em: ArrayLike, cuts: ArrayLike) -> dict[str, FloatArray]:
    """Shares of the neutral and of the charged clusters that each cut p_em >= cut takes for either,
    and of all that are taken rightly.

    Raises
    ------
    ValidationError
        If a species is missing.

    Examples
    --------
    >>> {name: rate.tolist() for name, rate in outcome_rates([0.9, 0.4, 0.6, 0.1], [True, True, False, False], [0.5]).items()}
    {'em_as_em': [0.5], 'em_as_had': [0.5], 'had_as_had': [0.5], 'had_as_em': [0.5], 'accuracy':
    [0.5]}
    """
    p, em, places = (
        np.asarray(p_em, dtype=np.float64),
        np.asarray(is_em, dtype=np.bool_),
        np.asarray(cuts, dtype=np.float64),
    )
    n_em = int(em.sum())
    if n_em == 0 or n_em == em.size:
        raise ValidationError(
            f"{n_em} neutral clusters of {em.size}: expected clusters of both species"
        )
    em_as_em, had_as_em = (
        1.0 - np.searchsorted(np.sort(p[side]), places, side="left") / int(side.sum())
        for side in (em, ~em)
    )
    accuracy = (n_em * em_as_em + (em.size - n_em) * (1.0 - had_as_em)) / em.size
    rates = {
        "em_as_em": em_as_em,
        "em_as_had": 1.0 - em_as_em,
        "had_as_had": 1.0 - had_as_em,
        "had_as_em": had_as_em,
    }
    return {**rates, "accuracy": np.asarray(accuracy)}


def _checked(
    p_em: ArrayLike, e_neutral: ArrayLike, e_charged: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Probabilities and energies as arrays, refused where they are none."""
    p, neutral, charged = (
        np.asarray(values, dtype=np.float64) for values in (p_em, e_neutral, e_charged)
    )
    if p.ndim != 1 or neutral.shape != p.shape or charged.shape != p.shape:
        raise ValidationError(
            f"p_em, e_neutral, e_charged have shapes {p.shape}, {neutral.shape}, {charged.shape}: "
            "expected (n_clusters,) each"
        )
    for name, values, good, expected in (
        ("p_em", p, (p >= 0.0) & (p <= 1.0), "in [0, 1]"),
        ("e_neutral", neutral, np.isfinite(neutral) & (neutral > 0.0), "finite and above 0 GeV"),
        ("e_charged", charged, np.isfinite(charged) & (charged > 0.0), "finite and above 0 GeV"),
    ):
        if not good.all():
            cluster = int(np.argmin(good))
            raise ValidationError(f"{name}[{cluster}] = {values[cluster]}: expected {expected}")
    return p, neutral, charged
