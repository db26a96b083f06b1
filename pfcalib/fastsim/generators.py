"""What all generators of showers have in common, and the one that needs no training: the package's
own parametrisation.
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


def as_voxels(
    binning: Binning, energy: ArrayLike, showers: NDArray[np.floating], threshold: float
) -> Voxels:
    """Showers without the voxels below the threshold, in GeV."""
    lit = np.where(showers < threshold, 0.0, showers).astype(np.float32)
    return Voxels(binning, np.asarray(energy, dtype=np.float64), lit)
