"""FastCaloSim V2: energies of layers from principal components, lateral shapes from histograms
(ATL-SOFT-PUB-2018-002, arXiv:2404.06335).

At each energy the total and the shares of the layers become Gaussians by their cumulative
distributions; the leading principal component of these cuts the showers into bins of equal
probability. In each bin this is done again with the showers of the bin, whose components are drawn
independently of each other. The energy of a layer goes to hits of equal energy, drawn from the mean
shape of the layer in the bin. Their number is Poisson: its mean is the inverse square of the
resolution of the layer, as ATLAS has it (TFCSLateralShapeParametrizationHitNumberFromE), or gives
the shares of voxels the spread that they have. In between two energies one of them is taken at
random, nearer ones more often, and the total scaled by the mean response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.fastsim.generators import as_voxels
from pfcalib.fastsim.scores import NormalScores, depths, layer_energies, shares_in_layers, turns
from pfcalib.fastsim.voxels import Voxels, layer_of, layer_sums
from pfcalib.samples.layouts.calochallenge import LAYERS, Binning

F64 = NDArray[np.float64]
FEWEST = 20  # showers of a bin
RELEVANT = 1e-3  # mean share of a layer that is simulated
MOST_HITS = 1e6  # in a layer
HITS = ("resolution", "spread")
# stochastic and constant term of the resolution of lead-argon and of tiles, by which hits are many
RESOLUTION = {True: (0.101, 0.002), False: (0.564, 0.055)}


@dataclass(frozen=True, kw_only=True)
class PcaConfig:
    """Options of the parametrisation.

    Parameters
    ----------
    n_bins : int
        Of the leading principal component.
    hits : str
        What their number is taken from, of HITS.
    threshold : float, GeV
        Below it a voxel is empty.
    """

    n_bins: int = 5
    hits: str = "resolution"
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        if self.n_bins < 1 or self.hits not in HITS:
            raise ConfigError(f"{self}: expected n_bins of at least 1, hits of {', '.join(HITS)}")


class _Bin(NamedTuple):
    """Showers of one energy and one range of the leading component."""

    scores: NormalScores  # of total and shares
    axes: F64  # (n, n) principal components in columns
    mean: F64  # (n,) of the components
    spread: F64  # (n,)
    shape: F64  # (n_voxels,) mean share of each voxel in its layer
    hits: F64  # (n_layers,) of the spread of shares, at the mean energy of the layer
    layers: F64  # (n_layers,) GeV, that mean energy


@dataclass(frozen=True)
class FastCaloSim:
    """A fitted parametrisation."""

    binning: Binning
    config: PcaConfig
    energies: F64  # (n_energies,) GeV
    response: F64  # (n_energies,) mean of the total over the energy
    bins: tuple[tuple[_Bin, ...], ...]  # of each energy

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted = np.asarray(energy, dtype=np.float64)
        at = np.interp(np.log(wanted), np.log(self.energies), np.arange(len(self.energies)))
        of = np.floor(at + rng.random(len(at))).astype(np.int64)
        scale = np.interp(np.log(wanted), np.log(self.energies), self.response) / self.response[of]
        which = (rng.random(len(at)) * np.array([len(one) for one in self.bins])[of]).astype(int)
        showers = np.zeros((len(wanted), self.binning.n_voxels))
        for k, b in np.unique(np.stack([of, which]), axis=1).T:
            rows = np.flatnonzero((of == k) & (which == b))
            showers[rows] = self._draw(self.bins[k][b], (wanted * scale)[rows], rng)
        return as_voxels(self.binning, wanted, showers, self.config.threshold)

    def _draw(self, of: _Bin, energy: F64, rng: np.random.Generator) -> F64:
        size = (len(energy), len(of.mean))
        scores = (of.mean + of.spread * rng.standard_normal(size)) @ of.axes.T
        known = np.full(len(energy), np.exp(of.scores.log_energy[0]))
        layers = layer_energies(energy, of.scores.inverse(known, scores)[0])
        showers = np.zeros((len(energy), self.binning.n_voxels))
        for i, start in enumerate(self.binning.starts):
            place = slice(start, start + self.binning.layers[i].n_voxels)
            if of.layers[i] > 0.0:
                mean = self._n_hits(of, i, layers[:, i])
                n = np.maximum(rng.poisson(np.minimum(mean, MOST_HITS)), 1)
                hits = rng.multinomial(n, of.shape[place])
                showers[:, place] = hits * (layers[:, i] / n)[:, None]
        return showers

    def _n_hits(self, of: _Bin, layer: int, energy: F64) -> F64:
        """Mean number of hits in a layer with these energies in GeV."""
        if self.config.hits == "spread":
            return of.hits[layer] * energy / of.layers[layer]
        terms = RESOLUTION[LAYERS[self.binning.layers[layer].sampling].is_em]
        return energy / (terms[0] ** 2 + terms[1] ** 2 * energy)


def fit_pca(training: Voxels, config: PcaConfig | None = None) -> FastCaloSim:
    """Parametrise showers of several energies.

    Lateral shapes are means over all turns of the showers about their axis.

    Raises
    ------
    ConfigError
        If there are too few showers of an energy.
    """
    config = config or PcaConfig()
    energies = np.unique(training.energy)
    fitted, response = [], []
    for energy in energies:
        mine = training.take(training.energy == energy)
        if len(mine.energy) < FEWEST:
            raise ConfigError(f"{len(mine.energy)} showers of {energy:g} GeV, expected {FEWEST}")
        values = depths(mine)
        response.append(values[:, 0].mean())
        scores, _ = NormalScores.fit(mine.energy, values).forward(
            mine.energy, values, np.random.default_rng(0)
        )
        leading = scores @ _components(scores)[0][:, -1]
        n_bins = min(config.n_bins, len(mine.energy) // FEWEST)
        place = np.argsort(np.argsort(leading)) * n_bins // len(leading)
        fitted.append(tuple(_fit_bin(mine.take(place == b)) for b in range(n_bins)))
    return FastCaloSim(training.binning, config, energies, np.array(response), tuple(fitted))


def _fit_bin(mine: Voxels) -> _Bin:
    values = depths(mine)
    values[:, 1:] *= values[:, 1:].mean(axis=0) > RELEVANT
    tables = NormalScores.fit(mine.energy, values)
    scores, _ = tables.forward(mine.energy, values, np.random.default_rng(0))
    axes, spread = _components(scores)
    binning, shares, layers = mine.binning, shares_in_layers(mine), mine.layers
    lit = layers > 0.0
    total = layers.sum(axis=0)
    shape = (mine.showers.sum(axis=0, dtype=np.float64))[turns(binning)].mean(axis=0)
    shape /= np.maximum(layer_sums(shape[None], binning)[0], 1e-30)[layer_of(binning)]
    # of n hits a voxel of share p has the variance p (1 - p) / n, for a share that is the mean one
    seen = lit[:, layer_of(binning)]
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, shares, 0.0).sum(axis=0) / count
    variance = np.where(seen, (shares - mean) ** 2, 0.0).sum(axis=0) / count
    expected = layer_sums((mean * (1.0 - mean))[None], binning)[0]
    found = layer_sums(variance[None], binning)[0]
    hits = np.where(found > 0.0, expected / np.maximum(found, 1e-30), 1.0)
    of_lit = total / np.maximum(lit.sum(axis=0), 1)
    return _Bin(tables, axes, scores.mean(axis=0) @ axes, spread, shape, hits, of_lit)


def _components(scores: F64) -> tuple[F64, F64]:
    """Principal components in columns, the leading one last, and the spread along each."""
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(scores, rowvar=False)))
    return axes, np.sqrt(np.maximum(values, 0.0))
