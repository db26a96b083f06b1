"""Derive the tables of local cell weighting from clusters of known pions, chunk by chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.lcw_closure import (
    ClusterRecord,
    close_cells,
    close_dead_material,
    close_out_of_cluster,
    concatenate_records,
)
from pfcalib.calibration.lcw_config import LcwConfig
from pfcalib.calibration.lcw_tables import LcwTables, bins_of, cell_rows, cluster_bins, geo_bins
from pfcalib.calibration.likelihood import EmLikelihood, fit_likelihood_in_chunks
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
    records = concatenate_records([_record(sample, tables, used) for sample in passes()])
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
        kind, bins, geo = (
            (~sample.is_em).astype(np.int64),
            cluster_bins(sample, config),
            geo_bins(sample.geo, config),
        )
        add_cells(
            sample.offsets,
            cell_rows(sample),
            sample.cells["cluster_cell_E"],
            truth,
            bins.energy,
            kind,
            *geo,
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
    e_tot, e_out, e_dead = (sample[name].astype(np.float64) for name in TARGETS)
    bins, p_em = cluster_bins(sample, tables.config), tables.likelihood.p_em(sample)
    e_em, isolation = (
        sample["clusterE"].astype(np.float64),
        sample["cluster_ISOLATION"].astype(np.float64),
    )
    derived = dataclasses.replace(tables, weights=np.where(used, tables.weights, 0.0)).sum_cells(
        sample
    )[:, 1:]
    return ClusterRecord(
        ~sample.is_em,
        p_em,
        *bins,
        tables.sum_cells(sample),
        derived,
        e_em,
        isolation,
        e_tot,
        e_out,
        e_dead,
    )


def _ratio_table(
    records: ClusterRecord, up: NDArray[np.float64], down: NDArray[np.float64], config: LcwConfig
) -> NDArray[np.float64]:
    """Sum of `up` over sum of `down` of the clusters of each bin; where they are too few of all
    depths, of all |eta| and depths, and 0 at last.
    """
    place = (
        records.charged.astype(np.int64),
        records.eta_bin,
        records.energy_bin,
        records.depth_bin,
    )
    flat = np.ravel_multi_index(place, config.cluster_shape)
    size = int(np.prod(config.cluster_shape))
    n, above, below = (
        np.bincount(flat, weights=w, minlength=size).reshape(config.cluster_shape)
        for w in (None, up, down)
    )
    table = np.zeros(config.cluster_shape)
    for axes in ((1, 3), (3,), ()):
        count, numerator, denominator = (
            part.sum(axis=axes, keepdims=True) for part in (n, above, below)
        )
        good = (count > config.min_entries) & (denominator > 0.0)
        table = np.where(good, numerator / np.where(good, denominator, 1.0), table)
    return table


__all__ = ["TARGETS", "TRUTH", "Chunks", "EmLikelihood", "bins_of", "fit_lcw"]
