"""Scale the tables of local cell weighting until the median response is one in bins of true energy.

A mean in bins of measured energy does not give a median of one in bins of true energy: the classes are mixed by P_EM, distributions are skewed, and
clusters migrate between the bins. So each table is multiplied by one factor k a bin of cluster energy and kind. With r(T) the median response of
a kind at true energy T, the factors of this kind are corrected by the mean of 1 / r over the clusters of each bin of cluster energy, and so on
for a fixed number of rounds. What a table looks like within a bin of cluster energy is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.lcw_config import LcwConfig
from pfcalib.calibration.lcw_tables import add_out_of_cluster, bounded

BINS_PER_DECADE = 10  # of true energy
MIN_CLUSTERS = 100  # of a kind in a bin of true energy; emptier bins take the response of their neighbours
LIMITS = (0.5, 2.0)  # of k


class ClusterRecord(NamedTuple):
    """Clusters without their cells; each array has shape (n_clusters,) unless told."""

    charged: NDArray[np.bool_]
    p_em: NDArray[np.float64]
    eta_bin: NDArray[np.int64]
    energy_bin: NDArray[np.int64]
    depth_bin: NDArray[np.int64]
    sums: NDArray[np.float64]  # (n_clusters, 3), GeV, of `LcwTables.sum_cells`
    e_em: NDArray[np.float64]  # GeV
    isolation: NDArray[np.float64]
    e_tot: NDArray[np.float64]  # GeV
    e_out: NDArray[np.float64]
    e_dead: NDArray[np.float64]

    @property
    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Part of the neutral and of the charged tables."""
        return self.p_em, 1.0 - self.p_em

    @property
    def place(self) -> tuple[NDArray[np.int64], ...]:
        """Bin of a table of clusters of one kind."""
        return self.eta_bin, self.energy_bin, self.depth_bin


def concatenate_records(records: Sequence[ClusterRecord]) -> ClusterRecord:
    """All chunks as one."""
    return ClusterRecord(*(np.concatenate(parts) for parts in zip(*records, strict=True)))


def close_cells(records: ClusterRecord, weights: NDArray[np.float64], config: LcwConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled cell weights, and E_cells of each cluster; target: ENG_CALIB_TOT."""

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = (share * k[kind][records.energy_bin] * records.sums[:, 1 + kind] for kind, share in enumerate(records.shares))
        return records.sums[:, 0] + sum(scaled)

    k = _solve(energy, energy, records, records.e_tot, config, free=(config.em_weights, True))
    return weights * k[:, None, None, :, None], energy(k)


def close_out_of_cluster(
    records: ClusterRecord, e_cells: NDArray[np.float64], table: NDArray[np.float64], config: LcwConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled out-of-cluster table, and E_ooc of each cluster; target: ENG_CALIB_TOT + ENG_CALIB_OUT_T."""
    extra = [s * records.isolation * of_kind[records.place] * records.e_em for s, of_kind in zip(records.shares, table, strict=True)]

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        result = e_cells
        for kind in (0, 1):
            result = add_out_of_cluster(result, k[kind][records.energy_bin] * extra[kind], config.factor_range)
        return result

    def scaled(k: NDArray[np.float64]) -> NDArray[np.float64]:
        return energy(k) - e_cells

    k = _solve(energy, scaled, records, records.e_tot + records.e_out, config)
    return table * k[:, None, :, None], energy(k)


def close_dead_material(
    records: ClusterRecord, e_ooc: NDArray[np.float64], table: NDArray[np.float64], config: LcwConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled table of dead material (of 1 + dm, the whole factor), and E_full of each cluster; target: ENG_CALIB_TOT + OUT_T + DEAD_TOT."""
    factors = [1.0 + of_kind[records.place] for of_kind in table]

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        factor = sum(share * k[kind][records.energy_bin] * factors[kind] for kind, share in enumerate(records.shares))
        return e_ooc * bounded(np.asarray(factor), config.factor_range)

    k = _solve(energy, energy, records, records.e_tot + records.e_out + records.e_dead, config)
    return k[:, None, :, None] * (1.0 + table) - 1.0, energy(k)


def _solve(
    energy: Callable[[NDArray[np.float64]], NDArray[np.float64]], scaled: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    records: ClusterRecord, target: NDArray[np.float64], config: LcwConfig, *, free: tuple[bool, bool] = (True, True),
) -> NDArray[np.float64]:  # fmt: skip
    """Factors k, shape (2, n_energy); `energy` gives all energies for some k, `scaled` that part of them that k multiplies."""
    k = np.ones((2, config.n_energy))
    kinds = [np.flatnonzero((records.charged == bool(kind)) & (target > 0.0)) for kind in (0, 1)]
    for _ in range(config.closure_iterations):
        now, part = energy(k), scaled(k)
        for kind, rows in enumerate(kinds):
            if not free[kind] or not len(rows):
                continue
            missing = (1.0 / median_response(now[rows], target[rows]) - 1.0) * now[rows] / target[rows]
            share = np.abs(part[rows]) / target[rows]
            bins = records.energy_bin[rows]
            above, below = (np.bincount(bins, weights=values, minlength=config.n_energy) for values in (missing, share))
            k[kind] = np.clip(k[kind] * np.clip(1.0 + above / np.where(below > 0.0, below, np.inf), 0.8, 1.25), *LIMITS)
    return k


def median_response(energy: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of energy over target at the target energy of each cluster, linear in its logarithm between the centres of the bins.

    Parameters
    ----------
    energy, target : ndarray, shape (n_clusters,), GeV
        Positive targets.
    """
    log = np.log10(target) * BINS_PER_DECADE
    bins = np.floor(log).astype(np.int64)
    bins -= bins.min()
    order = np.lexsort((energy / target, bins))
    response, count = (energy / target)[order], np.bincount(bins)
    ends = np.cumsum(count)
    full = np.flatnonzero(count >= min(MIN_CLUSTERS, count.max()))
    middle = (ends - count + ends - 1)[full] // 2
    median = 0.5 * (response[middle] + response[(ends - count + ends)[full] // 2])
    centres = np.bincount(bins, weights=log)[full] / count[full]
    return np.interp(log, centres, np.clip(median, 0.1, 10.0))
