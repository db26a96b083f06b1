"""What all generators of showers have in common, and those that need no training: the package's
own parametrisation, and showers that are kept and used again.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.fastsim.voxels import Voxels, fast_voxels
from pfcalib.samples.layouts.calochallenge import Binning


class Generator(Protocol):
    """A source of showers of one kind of particle."""

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        """A shower of each energy in GeV, in this order; `rng` is the source of all chance."""


class Parametrisation(NamedTuple):
    """The parametrised engine of the package, unrefined."""

    binning: Binning
    threshold: float = 1e-4  # GeV, below it a voxel is empty

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        return as_voxels(
            self.binning, energy, fast_voxels(self.binning, energy, rng), self.threshold
        )


class FrozenShowers(NamedTuple):
    """Showers that were made before, such as by Geant4 or by a submission to the CaloChallenge: one
    of an energy nearby is drawn and scaled, the more often the nearer it is in ln E.
    """

    known: Voxels

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted = np.asarray(energy, dtype=np.float64)
        order = np.argsort(self.known.energy, kind="stable")
        points, first, counts = np.unique(
            self.known.energy[order], return_index=True, return_counts=True
        )
        place = np.interp(np.log(wanted), np.log(points), np.arange(len(points)))
        point = np.floor(place + rng.random(len(wanted))).astype(np.int64)
        rows = order[first[point] + rng.integers(counts[point])]
        scale = (wanted / self.known.energy[rows])[:, None]
        return Voxels(
            self.known.binning, wanted, (self.known.showers[rows] * scale).astype(np.float32)
        )


def as_voxels(
    binning: Binning, energy: ArrayLike, showers: NDArray[np.floating], threshold: float
) -> Voxels:
    """Showers without the voxels below the threshold, in GeV."""
    lit = np.where(showers < threshold, 0.0, showers).astype(np.float32)
    return Voxels(binning, np.asarray(energy, dtype=np.float64), lit)
