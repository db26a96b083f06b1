"""Quantities as standard normal scores by their distribution at each energy, and showers as such
scores: total and layers, then rings, then voxels.

A quantity that is 0 with probability p has scores below the p-quantile of a standard Gaussian
there, at random; above 0 the score follows its distribution (cumulative Gaussianisation, as in
ATL-SOFT-PUB-2018-002). Between energies the logarithms of quantiles are interpolated in the
logarithm of the energy, those of the total energy in E^(-1/2), with which its width goes.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from pfcalib.errors import ConfigError
from pfcalib.fastsim.voxels import (
    Voxels,
    group_largest,
    group_sums,
    layer_of,
    layer_of_rings,
    ring_of,
)
from pfcalib.samples.layouts.calochallenge import Binning

F64 = NDArray[np.float64]
LEVELS = np.linspace(-3.3, 3.3, 67)  # normal scores of the tables of quantiles
_STEP = float(LEVELS[1] - LEVELS[0])
_TINY = 1e-9  # of a probability, kept from 0 and 1
NEVER = -30.0  # logarithm of what is never above 0


class NormalScores(NamedTuple):
    """Distributions of quantities at some energies."""

    log_energy: F64  # (n_energies,) ln GeV, rising
    empty: F64  # (n_energies, n) probability of 0
    logs: F64  # (n_energies, n, n_levels) logarithms of the quantiles of what is above 0
    n_roots: int  # quantities, the first, that are interpolated in E^(-1/2)

    @classmethod
    def fit(cls, energy: F64, values: NDArray[np.floating], *, n_roots: int = 0) -> Self:
        """Tables of values (n_showers, n), none below 0, at each energy (n_showers,) in GeV; the
        widths of the first n_roots go with E^(-1/2).
        """
        energies = np.unique(energy)
        empty = np.ones((len(energies), values.shape[1]))
        logs = np.full((*empty.shape, len(LEVELS)), np.nan)
        levels = ndtr(LEVELS)
        for k, one in enumerate(energies):
            here = values[energy == one]
            empty[k] = np.mean(here <= 0.0, axis=0)
            for j in np.flatnonzero(empty[k] < 1.0):
                lit = np.log(here[:, j][here[:, j] > 0.0])
                logs[k, j] = np.quantile(lit, levels)
        return cls(np.log(energies), empty, _fill(logs), n_roots)

    def forward(
        self, energy: F64, values: NDArray[np.floating], rng: np.random.Generator
    ) -> tuple[F64, F64]:
        """Scores of values (n_showers, n) at energies of the tables, and the probabilities of 0 at
        these energies; both (n_showers, n).

        Raises
        ------
        ConfigError
            If there is no table of an energy.
        """
        place = np.searchsorted(self.log_energy, np.log(energy) - 1e-6)
        place = np.minimum(place, len(self.log_energy) - 1)
        if not np.allclose(self.log_energy[place], np.log(energy), atol=1e-6):
            raise ConfigError("scores go to energies that are known only")
        scores = np.empty(values.shape)
        for k in np.unique(place):
            rows = place == k
            here = values[rows]
            lit = here > 0.0
            log = np.log(np.where(lit, here, 1.0))
            found = np.empty(here.shape)
            for j in range(here.shape[1]):
                found[:, j] = np.interp(log[:, j], self.logs[k, j], LEVELS)
            share = self.empty[k] + (1.0 - self.empty[k]) * ndtr(found)
            scores[rows] = np.where(lit, ndtri(np.clip(share, _TINY, 1.0 - _TINY)), np.nan)
        empty = self.empty[place]
        return draw_empty(scores, empty, rng), empty

    def inverse(self, energy: F64, scores: NDArray[np.floating]) -> tuple[F64, F64]:
        """Values of scores (n_showers, n) at any energies, and by how much the scores are above
        those of 0; both (n_showers, n).
        """
        known = self.log_energy
        log = np.clip(np.log(energy), known[0], known[-1])
        low = np.clip(np.searchsorted(known, log, side="right") - 1, 0, max(len(known) - 2, 0))
        high = np.minimum(low + 1, len(known) - 1)
        parts = []
        for variable in (_inverse_root, np.asarray):
            start, end = variable(known[low]), variable(known[high])
            gap = np.where(high > low, end - start, 1.0)
            parts.append(((variable(log) - start) / gap)[:, None])
        share = np.where(np.arange(scores.shape[1]) < self.n_roots, *parts)
        empty = (1.0 - share) * self.empty[low] + share * self.empty[high]
        p = ndtr(scores.astype(np.float64))
        above = (p - empty) / np.maximum(1.0 - empty, _TINY)
        level = ndtri(np.clip(above, _TINY, 1.0 - _TINY))
        place = np.clip((level - LEVELS[0]) / _STEP, 0.0, len(LEVELS) - 1.001)
        left = place.astype(np.int64)
        part, column = place - left, np.arange(scores.shape[1])[None, :]
        found = np.zeros(scores.shape)
        for row, weight in ((low, 1.0 - share), (high, share)):
            table = self.logs[row[:, None], column, left]
            table = table + part * (self.logs[row[:, None], column, left + 1] - table)
            found += weight * table
        return np.where(above > 0.0, np.exp(found), 0.0), p - empty


def _inverse_root(log_energy: F64) -> F64:
    return np.exp(-0.5 * log_energy)


def draw_empty(scores: F64, empty: F64, rng: np.random.Generator) -> F64:
    """Scores with random ones in place of NaN, below that of the probability of 0."""
    none = np.isnan(scores)
    drawn = rng.random(int(none.sum())) * empty[none]
    full = scores.copy()
    full[none] = ndtri(np.clip(drawn, _TINY, 1.0 - _TINY))
    return full


def _fill(logs: F64) -> F64:
    """Tables of energies at which a quantity is always 0 from the nearest energy at which it is
    not.
    """
    known = np.isfinite(logs[:, :, 0])
    for j in range(logs.shape[1]):
        there = np.flatnonzero(known[:, j])
        for k in np.flatnonzero(~known[:, j]):
            nearest = there[np.argmin(np.abs(there - k))] if len(there) else None
            logs[k, j] = logs[nearest, j] if nearest is not None else NEVER
    return logs


def depths(voxels: Voxels) -> F64:
    """Total energy over that of the particle, and the share of each layer, (n, 1 + n_layers)."""
    layers = voxels.layers
    total = layers.sum(axis=1)
    shares = layers / np.maximum(total, 1e-12)[:, None]
    return np.column_stack([total / voxels.energy, shares])


def layer_energies(energy: F64, values: F64) -> F64:
    """Energies of layers in GeV from what `depths` gives, (n, n_layers); shares are normalised."""
    shares = values[:, 1:] / np.maximum(values[:, 1:].sum(axis=1), 1e-12)[:, None]
    return shares * (values[:, 0] * energy)[:, None]


def total_and_layers(voxels: Voxels) -> F64:
    """Total energy and that of each layer over that of the particle, (n, 1 + n_layers)."""
    layers = voxels.layers
    return np.column_stack([layers.sum(axis=1), layers]) / voxels.energy[:, None]


def balanced(energy: F64, values: F64) -> F64:
    """Energies of layers in GeV, (n, n_layers), whose sum is the total, from values as of
    `total_and_layers`.

    What they miss goes to each layer by the square of its energy: those in which a particle leaves
    little, such as the ionisation of one that has not showered yet, keep theirs. Without a layer
    that has energy there is no shower, whatever the total.
    """
    total, layers = values[:, :1] * energy[:, None], values[:, 1:] * energy[:, None]
    square = layers**2
    missing = total - layers.sum(axis=1, keepdims=True)
    square /= np.maximum(square.sum(axis=1, keepdims=True), 1e-30)
    layers = np.maximum(layers + missing * square, 0.0)
    return layers * total / np.maximum(layers.sum(axis=1, keepdims=True), 1e-30)


def shares_in_layers(voxels: Voxels) -> F64:
    """Energy of each voxel over that of its layer, (n, n_voxels)."""
    of = np.maximum(voxels.layers, 1e-12)[:, layer_of(voxels.binning)]
    return voxels.showers / of


def rings_in_layers(voxels: Voxels) -> F64:
    """Energy of each ring over that of its layer, (n, n_rings)."""
    of = np.maximum(voxels.layers, 1e-12)[:, layer_of_rings(voxels.binning)]
    return group_sums(voxels.showers, ring_of(voxels.binning)) / of


def compose(
    energies: F64, of: NDArray[np.int64], shares: F64, above: F64, *, threshold: float
) -> F64:
    """Energies of parts from those of groups, such as of voxels from those of layers, (n, n_parts)
    GeV.

    Shares are normalised in each group. A group with energy and no share goes to the part that was
    the nearest to have one; parts below the threshold give theirs to the others.

    Parameters
    ----------
    energies : ndarray, shape (n, n_groups), GeV
    of : ndarray of int, shape (n_parts,)
        Group of each part.
    shares, above : ndarray, shape (n, n_parts)
        As of `NormalScores.inverse`.
    threshold : float, GeV
    """
    energies = np.where(energies < threshold, 0.0, energies)
    dark = (group_sums(shares, of) <= 0.0)[:, of]
    shares = np.where(dark & (above >= group_largest(above, of)[:, of]), 1.0, shares)
    for _ in range(2):
        parts = _scaled(shares, of, energies)
        largest = group_largest(parts, of)[:, of]
        shares = np.where((parts < threshold) & (parts < largest), 0.0, parts)
    return _scaled(shares, of, energies)


def _scaled(shares: F64, of: NDArray[np.int64], energies: F64) -> F64:
    return shares * (energies / np.maximum(group_sums(shares, of), 1e-30))[:, of]


def turns(binning: Binning) -> NDArray[np.int64]:
    """Where voxels go when a shower is turned by a sector or mirrored, (n_turns, n_voxels); the
    first is no turn.

    Raises
    ------
    ConfigError
        If layers are cut into different numbers of sectors above 1.
    """
    cut = {layer.n_alpha for layer in binning.layers if layer.n_alpha > 1}
    if len(cut) > 1:
        raise ConfigError(f"binning {binning.name} has {sorted(cut)} sectors: no common turns")
    n, found = max(cut, default=1), []
    for mirror in (False, True):
        for k in range(n):
            parts = []
            for start, layer in zip(binning.starts, binning.layers, strict=True):
                rings = np.arange(layer.n_voxels).reshape(layer.n_alpha, -1)
                if layer.n_alpha > 1:
                    rings = np.roll(rings[::-1] if mirror else rings, k, axis=0)
                parts.append(start + rings.ravel())
            found.append(np.concatenate(parts))
    return np.array(found)


def turned(voxels: Voxels, rng: np.random.Generator) -> Voxels:
    """The showers, each turned about its axis at random, which changes nothing in a detector of
    flat slabs.
    """
    choice = turns(voxels.binning)
    which = choice[rng.integers(len(choice), size=len(voxels.energy))]
    return voxels._replace(showers=np.take_along_axis(voxels.showers, which, axis=1))


def augmented(voxels: Voxels, rng: np.random.Generator, copies: int) -> Voxels:
    """Each shower as often as told, the further ones turned."""
    parts = [voxels, *(turned(voxels, rng) for _ in range(copies - 1))]
    return Voxels(
        voxels.binning,
        np.concatenate([part.energy for part in parts]),
        np.concatenate([part.showers for part in parts]),
    )
