"""The tables of local cell weighting and how they are applied: classify, weight, out of cluster,
dead material (arXiv:1603.02934, section 5).

With P the EM probability of a cluster, E its energy at the EM scale, and w, ooc, dm looked up for
neutral (n) and charged (c) pions:

    cells  E_cells = sum over cells of (P w_n + (1 - P) w_c) E_cell, where a cell at or below
    `cell_cut` sigma counts as it is ooc    E_ooc   = E_cells [1 + P isolation (E / E_cells) ooc_n],
    and the same once more with 1 - P and ooc_c full   E_full  = E_ooc [1 + P dm_n + (1 - P) dm_c]

A factor in brackets outside `factor_range` counts as 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.lcw_config import SAMPLINGS, LcwConfig, config_from_json
from pfcalib.calibration.lcw_store import Axis, StoredTable, read_tables, write_tables
from pfcalib.calibration.likelihood import AXES, EmLikelihood
from pfcalib.calibration.weighting import GEV_TO_MEV, sum_weighted
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.samples.schema import CellGeo, Sample

VERSION = 1  # of the tables in a file
KINDS = ("neutral", "charged")  # first axis of all tables but the likelihood
SCALARS_READ = (
    "clusterE",
    "clusterEta",
    "cluster_FIRST_ENG_DENS",
    "cluster_CENTER_LAMBDA",
    "cluster_ISOLATION",
)
CELLS_READ = ("cluster_cell_ID", "cluster_cell_E")
_ETA, _LOG_E = ("abs_eta", "|clusterEta|"), ("log_e", "log10(clusterE / MeV)")
_CELL_ETA = ("abs_eta", "|eta| of the cell")
_DENSITY = ("log_density", "log10(|cluster_cell_E| / MeV / (cell_geo_volume / mm3))")
_LAMBDA = ("log_lambda", "log10(cluster_CENTER_LAMBDA / mm)")
_DESCRIPTION = (
    "Local hadronic calibration of topological clusters as in arXiv:1603.02934: P_EM, cell "
    "weights, out of cluster, dead material. "
    "The formulas stand in pfcalib.calibration.lcw_tables."
)


class LcwEnergies(NamedTuple):
    """Each array is float64 of shape (n_clusters,)."""

    p_em: NDArray[np.float64]
    cells: NDArray[np.float64]  # GeV, after the cell weights
    ooc: NDArray[np.float64]  # GeV, and after the out-of-cluster correction
    full: NDArray[np.float64]  # GeV, and after the correction for dead material


class ClusterBins(NamedTuple):
    """Where clusters fall in the tables; int64, shape (n_clusters,)."""

    eta: NDArray[np.int64]
    energy: NDArray[np.int64]
    depth: NDArray[np.int64]


class GeoBins(NamedTuple):
    """What the kernels need of each row of CellGeo."""

    layer: NDArray[np.int64]  # -1 for a sampling that has no weights
    eta_bin: NDArray[np.int64]
    volume: NDArray[np.float64]  # mm3
    cut: NDArray[np.float64]  # GeV


def geo_bins(geo: CellGeo, config: LcwConfig) -> GeoBins:
    """Place of each cell of a geometry in the tables of cell weights."""
    layer = np.full(len(geo), -1, dtype=np.int64)
    for place, sampling in enumerate(SAMPLINGS):
        layer[geo.sampling == sampling] = place
    eta_bin = bins_of(np.abs(geo.eta.astype(np.float64)), config.cell_eta_edges)
    return GeoBins(
        layer,
        eta_bin,
        geo.volume.astype(np.float64),
        config.cell_cut * geo.sigma.astype(np.float64),
    )


def bins_of(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each value; the first or last one beyond the edges.

    >>> bins_of(np.array([-1.0, 0.0, 1.0, 9.0]), np.array([0.0, 1.0, 2.0])).tolist()
    [0, 0, 1, 1]
    """
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2).astype(
        np.int64
    )


def cluster_bins(sample: Sample, config: LcwConfig) -> ClusterBins:
    """Bins of |eta|, log10 E and log10 lambda of each cluster."""
    eta, energy, depth = (
        np.asarray(sample[name], dtype=np.float64)
        for name in ("clusterEta", "clusterE", "cluster_CENTER_LAMBDA")
    )
    tiny = np.finfo(np.float64).tiny
    log_e, log_lambda = (
        np.log10(np.maximum(energy * GEV_TO_MEV, tiny)),
        np.log10(np.maximum(depth, tiny)),
    )
    return ClusterBins(
        bins_of(np.abs(eta), config.cluster_eta_edges),
        bins_of(log_e, config.energy_edges),
        bins_of(log_lambda, config.lambda_edges),
    )


def cell_rows(sample: Sample) -> NDArray[np.int64]:
    """Row in CellGeo of each cell.

    Raises
    ------
    ValidationError
        If a cell is not in CellGeo.
    """
    rows = sample.geo.rows(sample.cells["cluster_cell_ID"])
    if np.any(rows < 0):
        place = int(np.argmin(rows))
        cluster = int(np.searchsorted(sample.offsets, place, side="right")) - 1
        raise ValidationError(
            f"cluster {cluster}: cell {sample.cells['cluster_cell_ID'][place]} is not in CellGeo"
        )
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class LcwTables:
    """All tables of local cell weighting; the first axis of `weights`, `ooc` and `dm` is that of
    KINDS.

    Parameters
    ----------
    likelihood : EmLikelihood
    weights : ndarray, shape (2, n_layers, n_cell_eta, n_energy, n_density)
        Of cells, the layers in the order of `LAYER_NAMES`.
    ooc, dm : ndarray, shape (2, n_cluster_eta, n_energy, n_lambda)
    config : LcwConfig
        Binning and cuts.
    provenance : mapping
        What the tables were derived from.

    Raises
    ------
    ValidationError
        If a shape is not that of the configuration, or a value is not finite.
    """

    likelihood: EmLikelihood
    weights: NDArray[np.float64]
    ooc: NDArray[np.float64]
    dm: NDArray[np.float64]
    config: LcwConfig
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, shape in (
            ("weights", self.config.weight_shape),
            ("ooc", self.config.cluster_shape),
            ("dm", self.config.cluster_shape),
        ):
            table = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if table.shape != shape or not np.isfinite(table).all():
                raise ValidationError(
                    f"LCW table {name}: shape {table.shape}, expected {shape} and finite values"
                )
            object.__setattr__(self, name, table)

    def apply(self, sample: Sample, *, p_em: ArrayLike | None = None) -> LcwEnergies:
        """Energies of clusters after each step.

        Parameters
        ----------
        sample : Sample
            With the columns SCALARS_READ and CELLS_READ.
        p_em : array_like, shape (n_clusters,), optional
            Probability of another classifier to be used in place of the likelihood.

        Raises
        ------
        ValidationError
            If a column is missing, a moment is not finite, a cell is unknown, or p_em is not one
            probability a cluster.
        """
        p = (
            self.likelihood.p_em(sample)
            if p_em is None
            else require_probabilities(p_em, len(sample))
        )
        sums = self.sum_cells(sample)
        cells = sums[:, 0] + p * sums[:, 1] + (1.0 - p) * sums[:, 2]
        return self.correct_clusters(sample, p, cells)

    def sum_cells(self, sample: Sample) -> NDArray[np.float64]:
        """GeV of the cells left alone, of the others as neutral, of the others as charged, shape
        (n_clusters, 3).
        """
        bins, geo, energy = (
            cluster_bins(sample, self.config),
            geo_bins(sample.geo, self.config),
            sample.cells["cluster_cell_E"],
        )
        return sum_weighted(
            sample.offsets,
            cell_rows(sample),
            energy,
            bins.energy,
            *geo,
            self.config.density_edges,
            self.weights,
        )

    def correct_clusters(
        self, sample: Sample, p: NDArray[np.float64], cells: NDArray[np.float64]
    ) -> LcwEnergies:
        """The two steps after the cell weights, from P and E_cells."""
        bins, e_em = (
            cluster_bins(sample, self.config),
            np.asarray(sample["clusterE"], dtype=np.float64),
        )
        isolation = np.asarray(sample["cluster_ISOLATION"], dtype=np.float64)
        shares = (p, 1.0 - p)
        ooc = cells
        for share, table in zip(shares, self.ooc, strict=True):
            ooc = add_out_of_cluster(
                ooc, share * isolation * table[bins] * e_em, self.config.factor_range
            )
        full = ooc * bounded(
            1.0 + sum(share * table[bins] for share, table in zip(shares, self.dm, strict=True)),
            self.config.factor_range,
        )
        return LcwEnergies(p, cells, ooc, full)

    def save(self, path: str | Path) -> None:
        """Write all tables as one JSON of correctionlib; see `lcw_store.write_tables`."""
        stored = {**self.provenance, "config": dataclasses.asdict(self.config)}
        write_tables(
            path, self.stored(), description=_DESCRIPTION, version=VERSION, provenance=stored
        )

    def stored(self) -> list[StoredTable]:
        """The tables one by one, as they are written."""
        config, tables = self.config, []
        axes = tuple(
            Axis(*names, edges) for names, edges in zip(AXES, self.likelihood.edges, strict=True)
        )
        tables.append(
            StoredTable(
                "p_em", "EM probability of a cluster", axes, self.likelihood.content, "P_EM"
            )
        )
        for kind, of_kind in zip(KINDS, self.weights, strict=True):
            for layer, edges, content in zip(
                LAYER_NAMES, config.density_edges, of_kind, strict=True
            ):
                axes = (
                    Axis(*_CELL_ETA, config.cell_eta_edges),
                    Axis(*_LOG_E, config.energy_edges),
                    Axis(*_DENSITY, edges),
                )
                text = f"weight of a cell of {layer} above {config.cell_cut:g} sigma in clusters of {kind} pions"
                tables.append(
                    StoredTable(
                        f"weight_{kind}_{layer}",
                        text,
                        axes,
                        content,
                        "true deposit over measured energy",
                    )
                )
        for name, table, output in (
            ("ooc", self.ooc, "GeV out of the cluster, over isolation x clusterE"),
            ("dm", self.dm, "factor - 1"),
        ):
            for kind, content in zip(KINDS, table, strict=True):
                axes = (
                    Axis(*_ETA, config.cluster_eta_edges),
                    Axis(*_LOG_E, config.energy_edges),
                    Axis(*_LAMBDA, config.lambda_edges),
                )
                text = f"{'out of cluster' if name == 'ooc' else 'dead material'}, {kind} pions"
                tables.append(StoredTable(f"{name}_{kind}", text, axes, content, output))
        return tables

    @classmethod
    def load(cls, path: str | Path) -> LcwTables:
        """Tables of a file of `save`.

        Raises
        ------
        BadFileError
            If the file is missing, broken, of another version or incomplete; it is named.
        """
        tables, provenance = read_tables(path, version=VERSION)
        try:
            config = config_from_json(provenance.pop("config"))
            likelihood = EmLikelihood(
                tuple(axis.edges for axis in tables["p_em"].axes), tables["p_em"].content
            )
            weights = np.stack(
                [
                    [tables[f"weight_{kind}_{layer}"].content for layer in LAYER_NAMES]
                    for kind in KINDS
                ]
            )
            ooc, dm = (
                np.stack([tables[f"{name}_{kind}"].content for kind in KINDS])
                for name in ("ooc", "dm")
            )
            loaded = cls(likelihood, weights, ooc, dm, config, provenance)
        except (KeyError, ValueError, TypeError, ConfigError, ValidationError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadFileError(f"{path}: not tables of local cell weighting: {what}") from error
        for expected in loaded.stored():
            same = all(
                np.array_equal(a.edges, b.edges)
                for a, b in zip(expected.axes, tables[expected.name].axes, strict=True)
            )
            if not same:
                raise BadFileError(
                    f"{path}: the edges of {expected.name} are not those of the configuration in "
                    "its description"
                )
        return loaded


def require_probabilities(p_em: ArrayLike, n_clusters: int) -> NDArray[np.float64]:
    """One probability a cluster, as float64; anything else raises a ValidationError."""
    p = np.asarray(p_em, dtype=np.float64)
    if p.shape != (n_clusters,) or not np.all((p >= 0.0) & (p <= 1.0)):
        raise ValidationError(
            f"p_em has shape {p.shape}: expected ({n_clusters},), each value in [0, 1]"
        )
    return p


def add_out_of_cluster(
    energy: NDArray[np.float64], extra: NDArray[np.float64], limits: tuple[float, float]
) -> NDArray[np.float64]:
    """Energy + extra where the factor that this makes lies within the limits, else the energy as it
    is.
    """
    safe = np.where(energy == 0.0, 1.0, energy)
    return energy * bounded(np.where(energy == 0.0, 1.0, 1.0 + extra / safe), limits)


def bounded(factor: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.float64]:
    """The factor, or 1 where it lies outside the limits.

    >>> bounded(np.array([0.2, 0.3, 1.5, 3.1]), (0.3, 3.0)).tolist()
    [1.0, 0.3, 1.5, 1.0]
    """
    return np.where((factor >= limits[0]) & (factor <= limits[1]), factor, 1.0)
