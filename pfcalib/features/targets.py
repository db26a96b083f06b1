"""What a regression learns: the true energy of a cluster, on a scale on which a network learns it
well, and the weights of the clusters.

The true energy is the deposit in the cells of the cluster, or that plus its shares of what lies
outside of clusters and in dead material (ATL-PHYS-PUB-2020-018 and LLNL-TR-814867 use the deposit).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError, ValidationError

TRUTHS = {  # columns that are summed
    "deposited": ("cluster_ENG_CALIB_TOT",),
    "full": ("cluster_ENG_CALIB_TOT", "cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT"),
}
SCALES = ("log_ratio", "ratio", "log")
# GeV, ten bins a decade; what lies outside counts in the first or last bin
FLAT_EDGES = np.logspace(-1.0, 4.0, 51)
MAX_WEIGHT = 10.0  # times the mean: a bin with a handful of clusters must not rule a training


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Target of a regression.

    Parameters
    ----------
    truth : str
        ``deposited``: cluster_ENG_CALIB_TOT; ``full``: with cluster_ENG_CALIB_OUT_T and
        cluster_ENG_CALIB_DEAD_TOT.
    scale : str
        ``log_ratio``: ln(E / clusterE); ``ratio``: E / clusterE; ``log``: ln(E / GeV).
    flat : bool
        Weight the clusters so that each species is flat in ln E.
    with_class : bool
        The target is [charged, neutral, energy], for a network with both heads.
    """

    truth: str = "deposited"
    scale: str = "log_ratio"
    flat: bool = True
    with_class: bool = False

    def __post_init__(self) -> None:
        for name, known in (("truth", TRUTHS), ("scale", SCALES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    f"TargetConfig: {name} = {value!r}, expected one of {', '.join(known)}"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a sample that the true energy is the sum of."""
        return TRUTHS[self.truth]

    def energy_true(self, scalars: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """True energy of each cluster, shape (n_clusters,), GeV."""
        return np.sum(
            [np.asarray(scalars[name], dtype=np.float64) for name in self.columns], axis=0
        )

    def encode(self, energy: ArrayLike, cluster_e: ArrayLike) -> NDArray[np.float64]:
        """Target from energies in GeV, shape (n_clusters,).

        Raises
        ------
        ValidationError
            If an energy is not positive and finite; the cluster is named.

        >>> TargetConfig(scale="ratio").encode([3.0], [2.0]).tolist()
        [1.5]
        """
        e, em = np.asarray(energy, dtype=np.float64), np.asarray(cluster_e, dtype=np.float64)
        for name, values in (("true energy", e), ("clusterE", em)):
            bad = ~(np.isfinite(values) & (values > 0.0))
            if bad.any():
                raise ValidationError(
                    f"{name} of cluster {int(np.argmax(bad))} is {values[np.argmax(bad)]} GeV: a "
                    "regression needs it above 0"
                )
        return {"log": np.log(e), "ratio": e / em, "log_ratio": np.log(e / em)}[self.scale]

    def decode(self, target: ArrayLike, cluster_e: ArrayLike) -> NDArray[np.float64]:
        """Energies in GeV from targets; the inverse of `encode`. Both broadcast.

        >>> TargetConfig().decode([0.0], [2.0]).tolist()
        [2.0]
        """
        y, em = np.asarray(target, dtype=np.float64), np.asarray(cluster_e, dtype=np.float64)
        if self.scale == "ratio":
            return y * em
        return np.exp(np.clip(y, -20.0, 20.0)) * (em if self.scale == "log_ratio" else 1.0)

    def log_energy(self, target: ArrayLike, cluster_e: ArrayLike) -> NDArray[np.float64]:
        """ln(E / GeV) from targets on a logarithmic scale; broadcasts.

        Raises
        ------
        ConfigError
            If the scale is not logarithmic.
        """
        if self.scale == "ratio":
            raise ConfigError(
                "a target on the scale 'ratio' has no logarithm: use 'log' or 'log_ratio'"
            )
        shift = (
            np.log(np.asarray(cluster_e, dtype=np.float64)) if self.scale == "log_ratio" else 0.0
        )
        return np.asarray(target, dtype=np.float64) + shift


def flat_weights(
    energy: ArrayLike, em: ArrayLike, *, edges: ArrayLike = FLAT_EDGES
) -> NDArray[np.float64]:
    """Weights that make each species flat in the logarithm of its energy, with mean one and at most
    MAX_WEIGHT times the mean of the species.

    Parameters
    ----------
    energy : array_like, shape (n,), GeV
    em : array_like of bool, shape (n,)
        Species: both get the same sum of weights, if both are there.
    edges : array_like, GeV
        Rising bin edges.

    >>> flat_weights([1.0, 1.0, 50.0], [True, True, True]).tolist()
    [0.75, 0.75, 1.5]
    """
    bins = np.asarray(edges, dtype=np.float64)
    n_bins = len(bins) - 1
    place = np.clip(
        np.searchsorted(bins, energy, side="right") - 1, 0, n_bins - 1
    ) + n_bins * np.asarray(em, dtype=np.int64)
    counts = np.bincount(place, minlength=2 * n_bins).reshape(2, n_bins).astype(np.float64)
    # weight of a cluster in each bin of each species
    content = np.where(counts > 0.0, 1.0 / np.maximum(counts, 1.0), 0.0)
    for _ in range(100):  # a cap lowers the mean, and that the cap
        total = np.maximum((content * counts).sum(axis=1, keepdims=True), 1e-300)
        content = np.minimum(content * counts.sum(axis=1, keepdims=True) / total, MAX_WEIGHT)
    total = (content * counts).sum(axis=1, keepdims=True)
    weights = (content / np.maximum(total, 1e-300)).ravel()[place]
    return np.asarray(weights * len(weights) / weights.sum())
