"""Clusters as they might have been with more noise: random extra noise in the cells and a random
cut on small cells, anew in every epoch.

A network that has seen clusters of many noise settings should not fall behind on one that it was
not trained on. The cells of a cluster are kept or dropped, none is added: the clustering itself is
not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError

MIN_SHARE = 0.2  # a cluster that would keep less of its energy stays as it was


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far the noise of a cluster may go; each cluster draws its own strength between none and
    the largest.

    Parameters
    ----------
    noise : float
        Largest extra noise of a cell, in units of its noise sigma.
    cut : float
        Largest cut on |E| / sigma of a cell; cells below it lose their energy.
    share : float
        Share of the clusters that are changed at all.
    """

    noise: float = 2.0
    cut: float = 2.0
    share: float = 0.8

    def __post_init__(self) -> None:
        if self.noise < 0.0 or self.cut < 0.0 or not 0.0 <= self.share <= 1.0:
            raise ConfigError(
                "AugmentConfig: noise and cut must not be negative and share lies in [0, 1]: "
                f"{self}"
            )


def augment_cells(
    offsets: NDArray[np.int64],
    energy: NDArray[np.floating],
    sigma: NDArray[np.floating],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Cells of clusters with extra noise and cuts.

    Parameters
    ----------
    offsets : array of int64, shape (n_clusters + 1,)
    energy, sigma : arrays, shape (offsets[-1],), GeV
        Cell energies (times the share of the cluster) and noise.
    config : AugmentConfig
    rng : numpy.random.Generator

    Returns
    -------
    energy : array of float32, shape (offsets[-1],), GeV
    factor : array of float64, shape (n_clusters,)
        Sum of the cells of each cluster over what it was.
    """
    n_clusters = len(offsets) - 1
    number = np.repeat(np.arange(n_clusters), np.diff(offsets))
    strength, cut = config.noise * rng.random(n_clusters), config.cut * rng.random(n_clusters)
    changed = rng.random(n_clusters) < config.share
    old = np.asarray(energy, dtype=np.float64)
    total = np.hypot(1.0, strength)[number] * sigma
    new = old + strength[number] * sigma * rng.standard_normal(len(old), dtype=np.float32)
    new = np.where(np.abs(new) < cut[number] * total, 0.0, new)
    before, after = np.bincount(number, old, n_clusters), np.bincount(number, new, n_clusters)
    changed &= (before > 0.0) & (after > MIN_SHARE * before)
    factor = np.where(changed, after, 1.0) / np.where(changed, before, 1.0)
    return np.where(changed[number], new, old).astype(np.float32), factor
