"""Cherenkov detectors with two gases: differences of log-likelihoods that tell kinds of particles
apart, and their exact distribution.

A particle of mass m and momentum p shines at cos(theta) = 1 / (n beta) in a gas of index n, with a
mean number of photons that goes with sin(theta)^2; n are those of LHCb (arXiv:1211.6759), numbers
of photons and widths of angles about as measured there. Made simple:

* Photons seen are Poisson, signal and a few of the background. A ring found has their mean angle,
  Gaussian about the true one with the width of one photon, larger in a crowd, over the square root
  of their number. Particles below the threshold of a gas make no ring.
* A hypothesis has the likelihood of number and angle, with angle 0 below its threshold. The
  logarithm less that of the pion, plus Gaussian noise of the crowd, is l; what is stored is
  l / (1 + |l| / LIMIT), since far from every ring photons tell no more.

Given the numbers of photons, l is linear in the angles, so its distribution is a mixture of
Gaussians over Poisson numbers, and so is that of each stored difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from particle import Particle
from scipy.special import ndtr
from scipy.stats import poisson

from pfcalib.errors import ConfigError

F64 = NDArray[np.float64]
KINDS = {"pion": 211, "kaon": 321, "proton": 2212, "muon": 13, "electron": 11}  # PDG numbers
MASS = np.array([(Particle.from_pdgid(n).mass or 0.0) / 1e3 for n in KINDS.values()])  # GeV
# each against the pion; the last is a particle that is below threshold in both gases
HYPOTHESES = ("kaon", "proton", "muon", "electron", "below threshold")
LIMIT = 200.0  # of the differences
BACKGROUND = (0.2, 500.0)  # photons on a ring, and tracks of the event that add one
CROWD = 400.0  # tracks that make a photon's angle sqrt(2) times as wide
NOISE = (1.0, 200.0)  # of l, and tracks that add as much
EDGE = 0.1  # of eta, over which a gas comes into reach
_FEW = 1e-9  # probability of numbers of photons that are left out, on either side


class Radiator(NamedTuple):
    """A gas and what is seen of it."""

    refraction: float
    photons: float  # at the largest angle, inside of the reach
    width: float  # rad, of the angle of one photon
    reach: tuple[float, float]  # eta


RADIATORS = {
    "C4F10": Radiator(1.0014, 20.4, 1.62e-3, (1.9, 4.4)),
    "CF4": Radiator(1.0005, 15.8, 0.68e-3, (2.8, 4.9)),
}


@dataclass(frozen=True, kw_only=True)
class RichConfig:
    """Which tracks to make.

    Parameters
    ----------
    n_tracks : int
        All KINDS equally often.
    p_range : (float, float), GeV
    eta_range : (float, float)
    seed : int
    """

    n_tracks: int = 100_000
    p_range: tuple[float, float] = (3.0, 100.0)
    eta_range: tuple[float, float] = (2.0, 4.8)
    seed: int = 1

    def __post_init__(self) -> None:
        if (
            self.n_tracks < 1
            or not 0.0 < self.p_range[0] < self.p_range[1]
            or not self.eta_range[0] < self.eta_range[1]
        ):
            raise ConfigError(f"RichConfig: expected tracks and rising ranges, not {self}")


class RichTracks(NamedTuple):
    """Tracks of known particles."""

    kind: NDArray[np.int64]  # (n,) place in KINDS
    momentum: F64  # (n,) GeV
    eta: F64  # (n,)
    n_tracks: F64  # (n,) of the event

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Some of the tracks."""
        return type(self)._make(column[rows] for column in self)

    @property
    def condition(self) -> F64:
        """What a generator knows: ln(momentum / GeV), pseudorapidity, tracks of the event, and 1 in
        the column of the kind; (n, 8).
        """
        kind = np.eye(len(KINDS))[self.kind]
        return np.column_stack([np.log(self.momentum), self.eta, self.n_tracks, kind])


class _Terms(NamedTuple):
    """What decides on l of each hypothesis for a gas; (n, n_hypotheses) or (n, 1)."""

    photons: F64  # mean number, background included
    constant: F64  # of l
    slope: F64  # of the mean of l with the number of photons
    per_photon: F64  # root of the variance of l a photon, with the sign of the angle's effect


def cherenkov_angle(index: float, mass: ArrayLike, momentum: ArrayLike) -> F64:
    """Angle of the photons in rad, 0 below threshold; mass and momentum in GeV.

    >>> round(1e3 * float(cherenkov_angle(1.0014, 0.13957, 100.0)), 1)
    52.9
    """
    p = np.asarray(momentum, dtype=np.float64)
    cosine = np.hypot(p, mass) / (index * p)
    return np.asarray(np.arccos(np.minimum(cosine, 1.0)))


def _terms(tracks: RichTracks, gas: Radiator) -> _Terms:
    crowd = tracks.n_tracks[:, None]
    low, high = ((tracks.eta[:, None] - edge) / EDGE for edge in gas.reach)
    share = 1.0 / (1.0 + np.exp(-low)) / (1.0 + np.exp(high))
    angle = cherenkov_angle(gas.refraction, MASS, tracks.momentum[:, None])  # (n, n_kinds)
    signal = gas.photons * share * np.sin(angle) ** 2 / (1.0 - gas.refraction**-2)
    background = BACKGROUND[0] + crowd / BACKGROUND[1]
    width = gas.width * np.sqrt(1.0 + (crowd / CROWD) ** 2)
    nothing = np.zeros_like(crowd)
    of_angle, of_signal = (np.hstack([of[:, 1:], nothing]) for of in (angle, signal))
    own = tracks.kind[:, None]
    true, pion = np.take_along_axis(angle, own, axis=1), angle[:, :1]
    lit = np.take_along_axis(signal, own, axis=1) > 0.0
    apart = np.where(lit, (of_angle - pion) / width, 0.0)
    return _Terms(
        np.take_along_axis(signal, own, axis=1) + background,
        signal[:, :1] - of_signal,
        np.log((of_signal + background) / (signal[:, :1] + background))
        + apart * (2.0 * true - of_angle - pion) / (2.0 * width),
        apart,
    )


def saturated(difference: ArrayLike) -> F64:
    """What is stored of a difference of log-likelihoods."""
    ell = np.asarray(difference, dtype=np.float64)
    return np.asarray(ell / (1.0 + np.abs(ell) / LIMIT))


def unsaturated(stored: ArrayLike) -> F64:
    """Difference of log-likelihoods behind what is stored, infinite at LIMIT and beyond.

    >>> round(float(unsaturated(saturated(-321.0))), 6)
    -321.0
    """
    d = np.asarray(stored, dtype=np.float64)
    return np.asarray(d / np.maximum(1.0 - np.abs(d) / LIMIT, 1e-12))


def noise_of(tracks: RichTracks) -> F64:
    """Width of the noise of l, (n,)."""
    return NOISE[0] * (1.0 + tracks.n_tracks / NOISE[1])


def simulate_rich(config: RichConfig) -> tuple[RichTracks, F64]:
    """Tracks with logarithmically flat momenta, flat pseudorapidities and events from quiet to
    crowded; and their differences as of `draw_differences`.
    """
    rng, n = np.random.default_rng(config.seed), config.n_tracks
    tracks = RichTracks(
        rng.integers(len(KINDS), size=n),
        np.exp(rng.uniform(np.log(config.p_range[0]), np.log(config.p_range[1]), n)),
        rng.uniform(*config.eta_range, n),
        np.minimum(20.0 + rng.gamma(2.5, 60.0, n), 600.0),
    )
    return tracks, draw_differences(tracks, rng)


def draw_differences(tracks: RichTracks, rng: np.random.Generator) -> F64:
    """Stored differences of log-likelihoods of HYPOTHESES to the pion, (n, 5)."""
    n = len(tracks.kind)
    ell = noise_of(tracks)[:, None] * rng.standard_normal((n, len(HYPOTHESES)))
    for gas in RADIATORS.values():
        terms = _terms(tracks, gas)
        photons = rng.poisson(terms.photons)
        pull = np.sqrt(photons) * rng.standard_normal((n, 1))
        ell += terms.constant + photons * terms.slope + pull * terms.per_photon
    return saturated(ell)


def mean_differences(tracks: RichTracks) -> tuple[F64, F64]:
    """Exact mean and variance of l before it is stored, (n, 5) each."""
    mean, variance = np.zeros((n := len(tracks.kind), len(HYPOTHESES))), np.zeros((n, 1))
    variance = variance + noise_of(tracks)[:, None] ** 2
    for gas in RADIATORS.values():
        terms = _terms(tracks, gas)
        mean += terms.constant + terms.photons * terms.slope
        variance = variance + terms.photons * (terms.slope**2 + terms.per_photon**2)
    return mean, np.broadcast_to(variance, mean.shape)


def exact_below(tracks: RichTracks, stored: ArrayLike, *, chunk: int = 500) -> F64:
    """Probability that a track's stored difference is below a value, for each hypothesis.

    Parameters
    ----------
    tracks : RichTracks
    stored : array_like, shape (n, 5) or what broadcasts to it
    chunk : int
        Tracks at once.

    Returns
    -------
    ndarray, shape (n, 5)
    """
    n = len(tracks.kind)
    wanted = np.broadcast_to(unsaturated(stored), (n, len(HYPOTHESES)))
    found = np.empty(wanted.shape)
    order = np.argsort(tracks.momentum)  # alike in numbers of photons
    for start in range(0, n, chunk):
        rows = order[start : start + chunk]
        found[rows] = _mixture(tracks.take(rows), wanted[rows])
    return found


def _mixture(tracks: RichTracks, wanted: F64) -> F64:
    (p1, k1, one), (p2, k2, two) = (_numbers(tracks, gas) for gas in RADIATORS.values())
    weight = p1[:, :, None] * p2[:, None, :]
    noise, found = noise_of(tracks)[:, None, None] ** 2, np.empty(wanted.shape)
    for h in range(wanted.shape[1]):
        mean = [
            terms.constant[:, h, None] + k * terms.slope[:, h, None]
            for terms, k in ((one, k1), (two, k2))
        ]
        variance = [k * terms.per_photon[:, h, None] ** 2 for terms, k in ((one, k1), (two, k2))]
        pull = wanted[:, h, None, None] - mean[0][:, :, None] - mean[1][:, None, :]
        pull /= np.sqrt(noise + variance[0][:, :, None] + variance[1][:, None, :])
        found[:, h] = np.einsum("ijk,ijk->i", weight, ndtr(pull))
    return found


def _numbers(tracks: RichTracks, gas: Radiator) -> tuple[F64, NDArray[np.int64], _Terms]:
    """Probabilities of numbers of photons, (n, n_numbers), and the numbers."""
    terms = _terms(tracks, gas)
    low = int(poisson.ppf(_FEW, terms.photons.min()))
    high = int(poisson.isf(_FEW, terms.photons.max()))
    numbers = np.arange(max(low, 0), high + 1)[None, :]
    return poisson.pmf(numbers, terms.photons), numbers, terms
