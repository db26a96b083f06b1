"""Derive the tables of local cell weighting from clusters of known pions, chunk by chunk.

A mean in bins of measured energy does not give a median of one in bins of true energy: kinds are
taken for each other, distributions are skewed, and clusters migrate between the bins. So each table
is multiplied by one factor k a bin of cluster energy and kind. The factors of a step are those that
minimise, over both kinds and all bins t of true energy,

    sum_t (median_t - 1)^2 + STIFFNESS^2 sum (second differences of log k)^2 + PULL^2 sum (log k)^2

with t in the range where the medians should be one. Below it no factor can close a median without
harm: a cluster of a few hundred MeV is as wide as several bins, so factors that press the lowest
bin down and lift the next ones make the response wider by a third. There the second differences
lead the factors on. Each kind has its own medians and its own factors, but as each cluster is a
mixture by P_EM, they are found together. What a table looks like within a bin of cluster energy is
left as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pfcalib.calibration.lcw_tables import (
    LcwConfig,
    LcwTables,
    add_out_of_cluster,
    bounded,
    cell_rows,
    cluster_bins,
    geo_bins,
)
from pfcalib.calibration.likelihood import fit_likelihood_in_chunks
from pfcalib.calibration.weighting import add_cells
from pfcalib.errors import ValidationError
from pfcalib.samples.schema import Sample

TRUTH = (
    "cluster_cell_hitsE_EM",
    "cluster_cell_hitsE_nonEM",
    "cluster_cell_hitsE_Invisible",
    "cluster_cell_hitsE_Escaped",
)
TARGETS = ("cluster_ENG_CALIB_TOT", "cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT")

Chunks = Iterable[Sample] | Callable[[], Iterable[Sample]]
BINS_PER_DECADE = 10  # of true energy
MIN_CLUSTERS = 30  # of a kind in a bin of true energy; emptier bins do not count
LIMITS = (0.5, 2.0)  # of k
STIFFNESS = 0.02  # weight of the second differences of log k
PULL = 0.005  # weight of log k itself
STEP = 0.02  # of log k in a derivative


def fit_lcw(
    chunks: Chunks, config: LcwConfig | None = None, *, provenance: dict[str, Any] | None = None
) -> LcwTables:
    """Tables of local cell weighting from clusters of single pions, neutral and charged.

    Parameters
    ----------
    chunks : iterable of Sample, or a function that gives one
        Gone through twice, so a generator must come as the function that makes it. One chunk at a
        time is in memory, and about 100 bytes of each cluster. Clusters are used as they come; what
        to select is up to the caller.
    config : LcwConfig, optional
    provenance : dict, optional
        Kept with the tables.

    Raises
    ------
    ValidationError
        If there are no clusters of one of the kinds, chunks can be gone through once only, or a
        column is missing.
    """
    config = config or LcwConfig()
    if not callable(chunks) and iter(chunks) is chunks:
        raise ValidationError(
            "chunks: an iterator ends after one pass; give a list, or the function that makes it"
        )
    passes: Callable[[], Iterable[Sample]] = chunks if callable(chunks) else lambda: chunks
    sums = np.zeros((*config.weight_shape, 4))
    likelihood = fit_likelihood_in_chunks(
        _while_adding_cells(passes(), sums, config), config=config.likelihood
    )
    nothing = np.zeros(config.cluster_shape)
    weights, used = _cell_weights(sums, config)
    tables = LcwTables(likelihood, weights, nothing, nothing, config)
    chunk_records = [_record(sample, tables, used) for sample in passes()]
    records = ClusterRecord(*map(np.concatenate, zip(*chunk_records, strict=True)))
    weights, e_cells = close_cells(records, weights, used, config)
    ooc, e_ooc = close_out_of_cluster(
        records,
        e_cells,
        _ratio_table(records, records.e_out, records.isolation * records.e_em, config),
        config,
    )
    dm, _ = close_dead_material(
        records,
        e_ooc,
        _ratio_table(records, records.e_dead, records.e_tot + records.e_out, config),
        config,
    )
    counts = {"neutral": int(np.sum(~records.charged)), "charged": int(np.sum(records.charged))}
    return LcwTables(
        likelihood, weights, ooc, dm, config, {**(provenance or {}), "n_clusters": counts}
    )


def _while_adding_cells(
    chunks: Iterable[Sample], sums: NDArray[np.float64], config: LcwConfig
) -> Iterator[tuple[Sample, NDArray[np.bool_]]]:
    """Chunks and their classes as the likelihood wants them; their cells are added to the sums of
    `add_cells` on the way.
    """
    for sample in chunks:
        truth = np.sum([sample.cells[name] for name in TRUTH], axis=0, dtype=np.float64)
        add_cells(
            sample.offsets,
            cell_rows(sample),
            sample.cells["cluster_cell_E"],
            truth,
            cluster_bins(sample, config)[1],
            (~sample.is_em).astype(np.int64),
            *geo_bins(sample.geo, config),
            config.density_edges,
            sums,
        )
        yield sample, sample.is_em


def _cell_weights(
    sums: NDArray[np.float64], config: LcwConfig
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Content of each bin of cells, and whether it has enough entries; 1 where it has not."""
    n, ratios, true, measured = np.moveaxis(sums, -1, 0)
    up, down = (ratios, n) if config.content == "mean_of_ratios" else (true, measured)
    used = (n > config.min_entries) & (down > 0.0)
    if not config.em_weights:
        used[0] = False
    return np.where(used, up / np.where(used, down, 1.0), 1.0), used


def _record(sample: Sample, tables: LcwTables, used: NDArray[np.bool_]) -> ClusterRecord:
    """What the later steps need of each cluster of a chunk."""
    only_used = dataclasses.replace(tables, weights=np.where(used, tables.weights, 0.0))
    return ClusterRecord(
        ~sample.is_em,
        tables.likelihood.p_em(sample),
        *cluster_bins(sample, tables.config),
        tables.sum_cells(sample),
        only_used.sum_cells(sample)[:, 1:],
        *(sample[name].astype(np.float64) for name in ("clusterE", "cluster_ISOLATION", *TARGETS)),
    )


def _ratio_table(
    records: ClusterRecord, up: NDArray[np.float64], down: NDArray[np.float64], config: LcwConfig
) -> NDArray[np.float64]:
    """Sum of `up` over sum of `down` of the clusters of each bin; where they are too few of all
    depths, of all |eta| and depths, and 0 at last.
    """
    place = (records.charged.astype(np.int64), *records.place)
    n, above, below = np.zeros((3, *config.cluster_shape))
    for sums, weights in ((n, 1.0), (above, up), (below, down)):
        np.add.at(sums, place, weights)
    table = np.zeros(config.cluster_shape)
    for axes in ((1, 3), (3,), ()):
        count, numerator, denominator = (
            part.sum(axis=axes, keepdims=True) for part in (n, above, below)
        )
        good = (count > config.min_entries) & (denominator > 0.0)
        table = np.where(good, numerator / np.where(good, denominator, 1.0), table)
    return table


class ClusterRecord(NamedTuple):
    """Clusters without their cells; each array has shape (n_clusters,) unless told."""

    charged: NDArray[np.bool_]
    p_em: NDArray[np.float64]
    eta_bin: NDArray[np.int64]
    energy_bin: NDArray[np.int64]
    depth_bin: NDArray[np.int64]
    sums: NDArray[np.float64]  # (n_clusters, 3), GeV, of `LcwTables.sum_cells`
    # (n_clusters, 2), GeV, the part of sums[:, 1:] that comes from bins with enough entries
    derived: NDArray[np.float64]
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


def close_cells(
    records: ClusterRecord, weights: NDArray[np.float64], used: NDArray[np.bool_], config: LcwConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell weights, scaled in the bins that are used, and E_cells of each cluster; target:
    ENG_CALIB_TOT.
    """

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        more = (k[:, records.energy_bin] - 1.0) * records.derived.T
        parts = np.array(records.shares) * (records.sums[:, 1:].T + more)
        return records.sums[:, 0] + parts[0] + parts[1]

    k = _solve(energy, records, records.e_tot, config, free=(config.em_weights, True))
    return np.where(used, weights * k[:, None, None, :, None], weights), energy(k)


def close_out_of_cluster(
    records: ClusterRecord,
    e_cells: NDArray[np.float64],
    table: NDArray[np.float64],
    config: LcwConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled out-of-cluster table, and E_ooc of each cluster; target: ENG_CALIB_TOT +
    ENG_CALIB_OUT_T.
    """
    extra = [
        s * records.isolation * of_kind[records.place] * records.e_em
        for s, of_kind in zip(records.shares, table, strict=True)
    ]

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        result = e_cells
        for factor, of_kind in zip(k, extra, strict=True):
            result = add_out_of_cluster(
                result, factor[records.energy_bin] * of_kind, config.factor_range
            )
        return result

    k = _solve(energy, records, records.e_tot + records.e_out, config)
    return table * k[:, None, :, None], energy(k)


def close_dead_material(
    records: ClusterRecord,
    e_ooc: NDArray[np.float64],
    table: NDArray[np.float64],
    config: LcwConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scaled table of dead material (of 1 + dm, the whole factor), and E_full of each cluster;
    target: ENG_CALIB_TOT + OUT_T + DEAD_TOT.
    """
    factors = np.stack([1.0 + of_kind[records.place] for of_kind in table])

    def energy(k: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.array(records.shares) * k[:, records.energy_bin] * factors
        return e_ooc * bounded(parts[0] + parts[1], config.factor_range)

    k = _solve(energy, records, records.e_tot + records.e_out + records.e_dead, config)
    return k[:, None, :, None] * (1.0 + table) - 1.0, energy(k)


def _solve(
    energy: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    records: ClusterRecord,
    target: NDArray[np.float64],
    config: LcwConfig,
    *,
    free: tuple[bool, bool] = (True, True),
) -> NDArray[np.float64]:
    """Factors k, shape (2, n_energy), that bring the median of `energy(k)` over the target nearest
    to one.
    """
    shape = (2, config.n_energy)
    if config.closure_iterations == 0:
        return np.ones(shape)
    low, high = config.closure_range
    inside = (target >= low) & (target < high)
    groups = [
        _bins_of_truth(inside & (records.charged == bool(kind)), target)
        for kind in (0, 1)
        if free[kind]
    ]
    kinds = np.array(free)

    def factors(log_k: NDArray[np.float64]) -> NDArray[np.float64]:
        k = np.ones(shape)
        k[kinds] = np.exp(log_k).reshape(-1, config.n_energy)
        return k

    def distances(log_k: NDArray[np.float64]) -> NDArray[np.float64]:
        now = energy(factors(log_k))
        medians = [group.median(now, target) - 1.0 for group in groups]
        bends = STIFFNESS * np.diff(log_k.reshape(-1, config.n_energy), n=2, axis=1)
        return np.concatenate([*medians, bends.ravel(), PULL * log_k])

    start = np.zeros(int(kinds.sum()) * config.n_energy)
    found = least_squares(
        distances,
        start,
        bounds=np.log(LIMITS),
        diff_step=STEP,
        x_scale=1.0,
        max_nfev=config.closure_iterations,
    )
    return factors(found.x)


class TruthBins(NamedTuple):
    """Clusters of one kind sorted by bins of true energy."""

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]  # of each bin in rows

    def median(
        self, energy: NDArray[np.float64], target: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Median of energy over target in each bin."""
        response = energy[self.rows] / target[self.rows]
        return np.array([np.median(part) for part in np.split(response, self.ends)[:-1]])


def _bins_of_truth(mask: NDArray[np.bool_], target: NDArray[np.float64]) -> TruthBins:
    """Bins of equal width in the logarithm; those with few clusters are left out."""
    rows = np.flatnonzero(mask & (target > 0.0))
    log = np.log10(target[rows])
    order = np.argsort(log, kind="stable")
    number = np.floor(log[order] * BINS_PER_DECADE).astype(np.int64)
    count = np.bincount(number - number.min(initial=0))
    kept = count >= min(MIN_CLUSTERS, count.max(initial=0))
    keep = np.repeat(kept, count)
    return TruthBins(rows[order][keep], np.cumsum(count[kept]))
