"""The EM probability of a cluster from four moments: the classification step of local cell
weighting (arXiv:1603.02934, section 5.2).

For each class the share of its clusters that fall into a bin of (density, depth), among those of
the same |eta| and energy, is its efficiency eps; then P_EM = eps_em / (eps_em + eps_had): in every
bin of |eta| and energy both classes count alike, whatever the spectrum of the sample. A cluster is
taken as hadronic where P_EM < 0.5.

Bins with few clusters lean on coarser ones. With n_em and n_had the clusters of a bin, weighted so
that both classes sum to the same in each bin of (|eta|, energy), P = (n_em + k P_coarse) / (n_em +
n_had + k). P_coarse is the same quantity without |eta|, below that without energy too, and at last
one half; k = 0 is the plain published table, in which only an empty bin takes the coarser value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import COLUMNS
from pfcalib.errors import ConfigError, ValidationError

MEV = 1e3  # MeV in a GeV: the bins are those of the paper, in MeV
COLUMNS_READ = ("clusterEta", "clusterE", "cluster_FIRST_ENG_DENS", "cluster_CENTER_LAMBDA")
AXES = (  # name and meaning of each axis of the table
    ("abs_eta", "|clusterEta|"),
    ("log_e", "log10(clusterE / MeV)"),
    ("log_density", "log10(cluster_FIRST_ENG_DENS / (MeV/mm3)) - log10(clusterE / MeV)"),
    ("log_lambda", "log10(cluster_CENTER_LAMBDA / mm)"),
)
TINY = 1e-30  # stands for zero and below inside a logarithm: such clusters land in the lowest bin


class Columns(Protocol):
    """Anything that gives a scalar column by name: a `Sample`, or a dict of arrays."""

    def __getitem__(self, name: str, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class LikelihoodConfig:
    """Binning, as published, and the weight of the coarser bins."""

    n_eta: int = 25
    eta_range: tuple[float, float] = (0.0, 5.0)
    n_energy: int = 14
    log_e_range: tuple[float, float] = (float(np.log10(200.0)), 6.0)
    n_density: int = 20
    log_density_range: tuple[float, float] = (-9.0, -4.0)
    n_lambda: int = 20
    log_lambda_range: tuple[float, float] = (0.0, 4.0)
    prior_clusters: float = 5.0  # k above

    def __post_init__(self) -> None:
        if min(self.n_eta, self.n_energy, self.n_density, self.n_lambda) < 1:
            raise ConfigError("LikelihoodConfig: every axis needs at least one bin")
        if not self.prior_clusters >= 0.0:
            raise ConfigError(
                f"LikelihoodConfig: prior_clusters = {self.prior_clusters}, expected 0 or above"
            )
        for name in ("eta_range", "log_e_range", "log_density_range", "log_lambda_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise ConfigError(
                    f"LikelihoodConfig: {name} = ({low}, {high}), expected low < high"
                )

    @property
    def edges(self) -> tuple[NDArray[np.float64], ...]:
        """Bin edges of the four axes, in the order of AXES."""
        axes = (
            (self.eta_range, self.n_eta),
            (self.log_e_range, self.n_energy),
            (self.log_density_range, self.n_density),
            (self.log_lambda_range, self.n_lambda),
        )
        return tuple(np.linspace(*limits, n + 1) for limits, n in axes)


@dataclass(frozen=True, eq=False)
class EmLikelihood:
    """Table of P_EM; a cluster beyond an axis takes its first or last bin."""

    edges: tuple[NDArray[np.float64], ...]
    content: NDArray[np.float64]  # (n_eta, n_energy, n_density, n_lambda)

    def __post_init__(self) -> None:
        shape = tuple(len(edges) - 1 for edges in self.edges)
        if len(shape) != len(AXES) or self.content.shape != shape:
            raise ValidationError(
                f"table of shape {self.content.shape}: its edges ask for {shape}, {len(AXES)} axes"
            )
        if not all(np.all(np.diff(edges) > 0.0) for edges in self.edges):
            raise ValidationError("the edges of an axis do not increase")
        if not np.all((self.content >= 0.0) & (self.content <= 1.0)):
            raise ValidationError("the table holds a value that is not a probability")

    @cached_property
    def _flat(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(self.content).ravel()

    def p_em(self, sample: Columns) -> NDArray[np.float64]:
        """Probability of an electromagnetic cluster, shape (n_clusters,).

        Raises
        ------
        ValidationError
            If a moment is not finite; column and cluster are named.
        """
        return np.asarray(
            self._flat[np.ravel_multi_index(bin_indices(sample, self.edges), self.content.shape)]
        )


def bin_indices(
    sample: Columns, edges: tuple[NDArray[np.float64], ...]
) -> tuple[NDArray[np.int64], ...]:
    """Bin of each cluster on each axis, from columns clusterEta, clusterE [GeV],
    cluster_FIRST_ENG_DENS [GeV/mm3], cluster_CENTER_LAMBDA [mm].
    """
    eta, energy, density, depth = (
        np.asarray(sample[name], dtype=np.float64) for name in COLUMNS_READ
    )
    for name, values in zip(COLUMNS_READ, (eta, energy, density, depth), strict=True):
        if not np.isfinite(values).all():
            cluster = int(np.argmin(np.isfinite(values)))
            raise ValidationError(
                f"{name}, cluster {cluster}: {values[cluster]} {COLUMNS[name].unit}, expected a "
                "finite value"
            )
    log_e = log10_of(energy * MEV)
    coordinates = (np.abs(eta), log_e, log10_of(density * MEV) - log_e, log10_of(depth))
    return tuple(bins_of(values, axis) for values, axis in zip(coordinates, edges, strict=True))


def bins_of(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each value; the first or last one beyond the edges.

    >>> bins_of(np.array([-1.0, 0.0, 1.0, 9.0]), np.array([0.0, 1.0, 2.0])).tolist()
    [0, 0, 1, 1]
    """
    bins = np.searchsorted(edges, values, side="right") - 1
    return np.clip(bins, 0, len(edges) - 2).astype(np.int64)


def log10_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm in which zero and below lie under every bin."""
    return np.log10(np.maximum(values, TINY))


def fit_likelihood(
    sample: Columns, is_em: ArrayLike, *, config: LikelihoodConfig | None = None
) -> EmLikelihood:
    """Table of P_EM from clusters of known class.

    Parameters
    ----------
    sample : Sample or dict of arrays
        With the columns of COLUMNS_READ.
    is_em : array_like of bool, shape (n_clusters,)
        True for neutral pions.

    Raises
    ------
    ValidationError
        If lengths differ, a class is missing or a moment is not finite.
    """
    return fit_likelihood_in_chunks([(sample, is_em)], config=config)


def fit_likelihood_in_chunks(
    chunks: Iterable[tuple[Columns, ArrayLike]], *, config: LikelihoodConfig | None = None
) -> EmLikelihood:
    """What `fit_likelihood` gives for the clusters of all chunks taken together, of which one at a
    time is in memory.
    """
    config = config or LikelihoodConfig()
    edges = config.edges
    shape = tuple(len(axis) - 1 for axis in edges)
    counts = np.zeros((2, int(np.prod(shape))), dtype=np.int64)  # charged, neutral
    for sample, is_em in chunks:
        label, indices = np.asarray(is_em, dtype=np.bool_), bin_indices(sample, edges)
        if len(indices[0]) != len(label):
            raise ValidationError(
                f"{len(indices[0])} clusters, {len(label)} labels: expected as many labels"
            )
        flat = np.ravel_multi_index(indices, shape)
        for side in (False, True):
            counts[int(side)] += np.bincount(flat[label == side], minlength=counts.shape[1])
    n_had, n_em = counts.sum(axis=1).tolist()
    if not (n_had and n_em):
        raise ValidationError(f"{n_em} neutral and {n_had} charged clusters: expected both classes")
    had, em = counts.reshape(2, *shape).astype(np.float64)
    return EmLikelihood(edges, _shrunk(em, had, config.prior_clusters))


def _shrunk(em: NDArray[np.float64], had: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """P_EM of each bin, leaning on the table without |eta|, that without energy, and one half."""
    em, had = _balanced(em, had)
    p = np.full((1, 1, *em.shape[2:]), 0.5)
    for axes in ((0, 1), (0,), ()):
        n_em, n = em.sum(axis=axes, keepdims=True), (em + had).sum(axis=axes, keepdims=True)
        p = np.where(
            n + prior > 0.0, (n_em + prior * p) / np.where(n + prior > 0.0, n + prior, 1.0), p
        )
    return np.asarray(np.clip(p, 0.0, 1.0))


def _balanced(
    em: NDArray[np.float64], had: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts weighted so that both classes sum to half of the clusters in each (|eta|, energy) bin;
    nothing where a class is missing.
    """
    n_em, n_had = em.sum(axis=(2, 3), keepdims=True), had.sum(axis=(2, 3), keepdims=True)
    both = (n_em > 0.0) & (n_had > 0.0)
    half = 0.5 * (n_em + n_had)
    return em * np.where(both, half / np.maximum(n_em, 1.0), 0.0), had * np.where(
        both, half / np.maximum(n_had, 1.0), 0.0
    )
