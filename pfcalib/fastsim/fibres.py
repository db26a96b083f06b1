"""A zero-degree calorimeter of fibres: counts of photons of neutral particles, whose moments are
known, and the five channels that are read out.

Layout of the neutron calorimeter of ALICE as used for generators (arXiv:2207.01561,
arXiv:2507.18811): 44 x 44 fibres, every second one, as on a chessboard, to a common channel, the
others to one of four quadrants. The response is of our own making. A particle of energy E leaves

    N_i ~ Poisson(YIELD E f s_i),   s_i = (1 - h) core_i + h halo_i

photons in fibre i. The gain f is of Gamma's distribution with mean 1 and the relative width of the
kind of particle; the share h of the halo of Beta's; core and halo are Gaussian about the point of
impact, moved by the same Gaussian step. Neutrons fluctuate much, photons little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import wasserstein_distance

from pfcalib.errors import ConfigError

F64 = NDArray[np.float64]
N_FIBRES = 44  # a side
PITCH = 1.6  # mm
HALF = 0.5 * N_FIBRES * PITCH
YIELD = 0.3  # photons a GeV
CHANNELS = ("common", "quadrant 1", "quadrant 2", "quadrant 3", "quadrant 4")
_EDGES = np.linspace(-HALF, HALF, N_FIBRES + 1)
N_WAVES = 3
_NODES = 15  # of a quadrature over the step, a direction
CHUNK = 2000  # images at once


class Kind(NamedTuple):
    """How showers of a kind of particle fluctuate and spread."""

    sampling: float  # sqrt(GeV), relative width of f times sqrt(E)
    constant: float  # of the relative width of f
    halo: tuple[float, float]  # parameters of Beta's distribution of h
    core: float  # mm
    wide: float  # mm, of the halo
    step: float  # mm, by which the centre moves in each direction


KINDS = {
    "neutron": Kind(2.57, 0.10, (3.0, 6.0), 4.0, 13.0, 3.0),  # width as of ALICE's in beams
    "photon": Kind(0.6, 0.02, (6.0, 54.0), 2.5, 8.0, 0.4),
}


@dataclass(frozen=True, kw_only=True)
class FibreConfig:
    """Which images to make.

    Parameters
    ----------
    n_images : int
        Both KINDS equally often.
    e_range : (float, float), GeV
        Flat in the logarithm.
    spot : float, mm
        Width of the Gaussian of points of impact.
    seed : int
    """

    n_images: int = 10_000
    e_range: tuple[float, float] = (100.0, 2760.0)
    spot: float = 8.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.n_images < 1 or not 0.0 < self.e_range[0] < self.e_range[1] or self.spot < 0.0:
            raise ConfigError(f"FibreConfig: expected images and rising energies, not {self}")


class Hits(NamedTuple):
    """Particles that hit the calorimeter."""

    kind: NDArray[np.int64]  # (n,) place in KINDS
    energy: F64  # (n,) GeV
    x: F64  # (n,) mm, from the centre
    y: F64  # (n,) mm

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Some of the particles."""
        return type(self)._make(column[rows] for column in self)

    def each(self, name: str) -> F64:
        """A number of the Kind of each particle, (n,)."""
        return np.array([getattr(kind, name) for kind in KINDS.values()])[self.kind]

    @property
    def condition(self) -> F64:
        """What a generator knows: ln(energy / GeV), kind, x and y, and their waves over the face;
        (n, 4 + 4 N_WAVES). Of the nine numbers published for a particle (energy, momentum,
        vertex, mass, charge) these are what a neutral one's shower depends on.
        """
        place = np.stack([self.x, self.y], axis=1) / HALF
        waves = (np.pi * k * place for k in range(1, N_WAVES + 1))
        turned = [f(wave) for wave in waves for f in (np.sin, np.cos)]
        return np.column_stack([np.log(self.energy), self.kind, place, *turned])

    @property
    def gain_width(self) -> F64:
        """Relative width of the gain, (n,)."""
        return np.hypot(self.each("sampling") / np.sqrt(self.energy), self.each("constant"))


def channel_masks() -> F64:
    """Which fibres go to which channel, (5, 44, 44)."""
    i, j = np.indices((N_FIBRES, N_FIBRES))
    common, high_i, high_j = (i + j) % 2 == 1, i >= N_FIBRES // 2, j >= N_FIBRES // 2
    quadrants = [~common & (high_i == a) & (high_j == b) for a in (0, 1) for b in (0, 1)]
    return np.array([common, *quadrants], dtype=np.float64)


def channels(images: NDArray[np.generic]) -> F64:
    """Photons of each channel, (n, 5), of images (n, 44, 44)."""
    flat = np.asarray(images).reshape(len(images), -1)
    return flat @ channel_masks().reshape(len(CHANNELS), -1).T


def channel_distances(true: F64, generated: F64) -> F64:
    """Wasserstein distance of each channel in photons, (5,); their mean is what is published."""
    pairs = zip(true.T, generated.T, strict=True)
    return np.array([wasserstein_distance(one, other) for one, other in pairs])


def simulate_fibres(config: FibreConfig) -> tuple[Hits, NDArray[np.uint16]]:
    """Particles, and an image of each as of `draw_images`."""
    rng, n = np.random.default_rng(config.seed), config.n_images
    low, high = np.log(config.e_range)
    hits = Hits(
        rng.integers(len(KINDS), size=n), np.exp(rng.uniform(low, high, n)),
        *np.clip(rng.normal(0.0, config.spot, (2, n)), -HALF, HALF),
    )  # fmt: skip
    return hits, draw_images(hits, rng)


def draw_images(hits: Hits, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Counts of photons, (n, 44, 44)."""
    parts = [np.zeros((0, N_FIBRES, N_FIBRES), np.uint16)]
    for start in range(0, len(hits.kind), CHUNK):
        some = hits.take(slice(start, start + CHUNK))
        n, shape = len(some.kind), some.gain_width**-2
        gain = rng.gamma(shape) / shape
        halo = rng.beta(*np.array([kind.halo for kind in KINDS.values()])[some.kind].T)
        step = some.each("step") * rng.standard_normal((2, n))
        at_x, at_y = some.x + step[0], some.y + step[1]
        light = YIELD * some.energy * gain
        mean = _outer(light * (1.0 - halo), at_x, at_y, some.each("core"))
        mean += _outer(light * halo, at_x, at_y, some.each("wide"))
        parts.append(rng.poisson(mean).astype(np.uint16))
    return np.concatenate(parts)


def _outer(light: F64, x: F64, y: F64, width: F64) -> F64:
    """Light of a Gaussian in each fibre, (n, 44, 44)."""
    of_x, of_y = (np.diff(ndtr((_EDGES - at[:, None]) / width[:, None])) for at in (x, y))
    return light[:, None, None] * of_x[:, :, None] * of_y[:, None, :]


def channel_moments(hits: Hits) -> tuple[F64, F64]:
    """Exact mean and covariance of the channels, (n, 5) and (n, 5, 5).

    Means over f and h are known in closed form; that over the step is a quadrature of Gauss and
    Hermite, of polynomials as good as the profiles are smooth over it.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    weight = weight / weight.sum()
    n, step = len(hits.kind), hits.each("step")
    a, b = np.array([kind.halo for kind in KINDS.values()])[hits.kind].T
    mean_h = a / (a + b)
    square_h = mean_h * (a + 1.0) / (a + b + 1.0)
    of_core, cross, of_halo = 1.0 - 2.0 * mean_h + square_h, mean_h - square_h, square_h
    first, second = np.zeros((n, 5)), np.zeros((n, 5, 5))
    for u, of_u in zip(node, weight, strict=True):
        for v, of_v in zip(node, weight, strict=True):
            core, halo = (
                channels(_outer(np.ones(n), hits.x + u * step, hits.y + v * step, hits.each(of)))
                for of in ("core", "wide")
            )
            first += of_u * of_v * ((1.0 - mean_h)[:, None] * core + mean_h[:, None] * halo)
            mixed = core[:, :, None] * halo[:, None, :]
            second += (of_u * of_v) * (
                of_core[:, None, None] * core[:, :, None] * core[:, None, :]
                + cross[:, None, None] * (mixed + mixed.transpose(0, 2, 1))
                + of_halo[:, None, None] * halo[:, :, None] * halo[:, None, :]
            )
    light = YIELD * hits.energy
    mean = light[:, None] * first
    second *= (light**2 * (1.0 + hits.gain_width**2))[:, None, None]
    covariance = second - mean[:, :, None] * mean[:, None, :]
    return mean, covariance + mean[:, :, None] * np.eye(5)
