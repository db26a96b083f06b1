"""The tables of local cell weighting, how they are applied, and the file that holds them: classify,
weight, out of cluster, dead material (arXiv:1603.02934, section 5).

With P the EM probability of a cluster, E its energy at the EM scale, and w, ooc, dm looked up for
neutral (n) and charged (c) pions:

    cells  E_cells = sum over cells of (P w_n + (1 - P) w_c) E_cell, where a cell at or below
           `cell_cut` sigma counts as it is
    ooc    E_ooc   = E_cells [1 + P isolation (E / E_cells) ooc_n], and the same once more with
           1 - P and ooc_c
    full   E_full  = E_ooc [1 + P dm_n + (1 - P) dm_c]

A factor in brackets outside `factor_range` counts as 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from correctionlib import schemav2
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import write_text
from pfcalib.calibration.likelihood import AXES, EmLikelihood, LikelihoodConfig, bins_of, log10_of
from pfcalib.calibration.weighting import GEV_TO_MEV, sum_weighted
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError, PfcalibError, ValidationError
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.select import SelectionConfig

SAMPLINGS = (0, 1, 2, 3, 12, 13, 14)  # of LAYER_NAMES
# log10 of MeV/mm3; arXiv:1603.02934 gives none for the presampler, whose cells of 2 sigma to 50 GeV
# are covered here
DENSITY_RANGES = (
    (-3.0, 0.0),
    (-4.6, 1.1),
    (-4.8, 0.5),
    (-4.9, 0.6),
    (-6.0, -1.0),
    (-6.7, -1.2),
    (-7.0, -1.9),
)
# clusters of all studies of energies
REGRESSION_SELECTION = SelectionConfig(min_cluster_e=0.1, min_deposit=0.2)
CONTENTS = ("mean_of_ratios", "ratio_of_sums")


VERSION = 1  # of the tables in a file
_PROVENANCE = "provenance: "  # what follows it in the description of a file is JSON
KINDS = ("neutral", "charged")  # first axis of all tables but the likelihood
SCALARS_READ = (
    "clusterE",
    "clusterEta",
    "cluster_FIRST_ENG_DENS",
    "cluster_CENTER_LAMBDA",
    "cluster_ISOLATION",
)
CELLS_READ = ("cluster_cell_ID", "cluster_cell_E")
_LOG_E = ("log_e", "log10(clusterE / MeV)")
_DENSITY = ("log_density", "log10(|cluster_cell_E| / MeV / (cell_geo_volume / mm3))")
_LAMBDA = ("log_lambda", "log10(cluster_CENTER_LAMBDA / mm)")
_DESCRIPTION = (
    "Local hadronic calibration of topological clusters as in arXiv:1603.02934: P_EM, cell "
    "weights, out of cluster, dead material. "
    "The formulas stand in pfcalib.calibration.lcw_tables."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LcwConfig:
    """Binning and cuts, and the choices that the publication leaves open.

    Parameters
    ----------
    likelihood : LikelihoodConfig
        Of the first step.
    selection : SelectionConfig
        Clusters that the tables are derived from.
    n_cell_eta, cell_eta_range
        Bins of |eta| of a cell, 0.1 wide; the barrel ends at 0.8.
    n_energy, log_e_range
        Bins of log10(E / MeV) of the cluster, in all tables.
    n_density, density_ranges
        Bins of log10 of the energy density of a cell in MeV/mm3, a range for each layer of
        `LAYER_NAMES`.
    n_cluster_eta, cluster_eta_range, n_lambda, log_lambda_range
        Bins of |eta| and log10(lambda / mm) of the cluster for the last two steps.
    cell_cut : float
        Cells with |E| / sigma above it are weighted.
    min_entries : int
        A bin needs more entries than this to be used; cells of other bins keep weight 1.
    factor_range : (float, float)
        A factor of the last two steps outside counts as 1.
    content : str
        Of a bin of cell weights: the mean of true over measured energy ("mean_of_ratios", as
        published), or true over measured energy of all its cells together ("ratio_of_sums").
    em_weights : bool
        Derive weights for neutral pions too; if not, w_n = 1 as published.
    closure_iterations : int
        Rounds of the fit that scales the tables of each step towards a median of one in bins of
        true energy, see `lcw_fit`; 0 leaves the plain means.
    closure_range : (float, float), GeV
        True energies at which the medians should be one; others have no part in the fit.
    """

    likelihood: LikelihoodConfig = dataclasses.field(default_factory=LikelihoodConfig)
    selection: SelectionConfig = REGRESSION_SELECTION
    n_cell_eta: int = 8
    cell_eta_range: tuple[float, float] = (0.0, 0.8)
    n_energy: int = 14
    log_e_range: tuple[float, float] = (float(np.log10(200.0)), 6.0)
    n_density: int = 14
    density_ranges: tuple[tuple[float, float], ...] = DENSITY_RANGES
    n_cluster_eta: int = 50
    cluster_eta_range: tuple[float, float] = (0.0, 5.0)
    n_lambda: int = 14
    log_lambda_range: tuple[float, float] = (0.0, 4.0)
    cell_cut: float = 2.0
    min_entries: int = 10
    factor_range: tuple[float, float] = (0.3, 3.0)
    content: str = "ratio_of_sums"
    em_weights: bool = True
    closure_iterations: int = 10
    closure_range: tuple[float, float] = (1.0, 1000.0)

    def __post_init__(self) -> None:
        if (
            min(self.n_cell_eta, self.n_energy, self.n_density, self.n_cluster_eta, self.n_lambda)
            < 1
        ):
            raise ConfigError("LcwConfig: every axis needs at least one bin")
        if len(self.density_ranges) != len(LAYER_NAMES):
            raise ConfigError(
                f"LcwConfig: {len(self.density_ranges)} density_ranges, expected one for each of "
                f"{', '.join(LAYER_NAMES)}"
            )
        names = (
            "cell_eta_range",
            "log_e_range",
            "cluster_eta_range",
            "log_lambda_range",
            "factor_range",
            "closure_range",
        )
        for name, (low, high) in [
            *((n, getattr(self, n)) for n in names),
            *(("density_ranges", limits) for limits in self.density_ranges),
        ]:
            if not low < high:
                raise ConfigError(f"LcwConfig: {name} = ({low}, {high}), expected low < high")
        if self.content not in CONTENTS:
            raise ConfigError(
                f"LcwConfig: content = {self.content!r}, expected one of {', '.join(CONTENTS)}"
            )
        if not (self.cell_cut >= 0.0 and self.min_entries >= 0 and self.closure_iterations >= 0):
            raise ConfigError(
                "LcwConfig: cell_cut, min_entries and closure_iterations must not be negative"
            )

    @property
    def cell_eta_edges(self) -> NDArray[np.float64]:
        """Edges of |eta| of a cell."""
        return np.linspace(*self.cell_eta_range, self.n_cell_eta + 1)

    @property
    def energy_edges(self) -> NDArray[np.float64]:
        """Edges of log10(E / MeV) of the cluster."""
        return np.linspace(*self.log_e_range, self.n_energy + 1)

    @property
    def density_edges(self) -> NDArray[np.float64]:
        """Edges of log10 of the density in MeV/mm3, shape (n_layers, n_density + 1)."""
        return np.stack(
            [np.linspace(*limits, self.n_density + 1) for limits in self.density_ranges]
        )

    @property
    def cluster_eta_edges(self) -> NDArray[np.float64]:
        """Edges of |eta| of the cluster."""
        return np.linspace(*self.cluster_eta_range, self.n_cluster_eta + 1)

    @property
    def lambda_edges(self) -> NDArray[np.float64]:
        """Edges of log10(lambda / mm)."""
        return np.linspace(*self.log_lambda_range, self.n_lambda + 1)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Kind, layer, |eta|, energy, density."""
        return (2, len(LAYER_NAMES), self.n_cell_eta, self.n_energy, self.n_density)

    @property
    def cluster_shape(self) -> tuple[int, ...]:
        """Kind, |eta|, energy, depth."""
        return (2, self.n_cluster_eta, self.n_energy, self.n_lambda)


# what the publication does: plain means, and weight 1 for neutral pions
PUBLISHED = LcwConfig(content="mean_of_ratios", em_weights=False, closure_iterations=0)


class LcwEnergies(NamedTuple):
    """Each array is float64 of shape (n_clusters,)."""

    p_em: NDArray[np.float64]
    cells: NDArray[np.float64]  # GeV, after the cell weights
    ooc: NDArray[np.float64]  # GeV, and after the out-of-cluster correction
    full: NDArray[np.float64]  # GeV, and after the correction for dead material


def geo_bins(geo: CellGeo, config: LcwConfig) -> tuple[NDArray[Any], ...]:
    """What the kernels of `weighting` need of each cell of a geometry: its layer (-1: has no
    weights), bin of |eta|, volume in mm3, and the |E| in GeV above which it is weighted.
    """
    layer = np.full(len(geo), -1, dtype=np.int64)
    for place, sampling in enumerate(SAMPLINGS):
        layer[geo.sampling == sampling] = place
    eta, volume, sigma = (a.astype(np.float64) for a in (geo.eta, geo.volume, geo.sigma))
    return layer, bins_of(np.abs(eta), config.cell_eta_edges), volume, config.cell_cut * sigma


def cluster_bins(
    sample: Sample, config: LcwConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Bins of |eta|, log10 E and log10 lambda of each cluster, shape (n_clusters,) each."""
    eta, energy, depth = (
        np.asarray(sample[name], dtype=np.float64)
        for name in ("clusterEta", "clusterE", "cluster_CENTER_LAMBDA")
    )
    return (
        bins_of(np.abs(eta), config.cluster_eta_edges),
        bins_of(log10_of(energy * GEV_TO_MEV), config.energy_edges),
        bins_of(log10_of(depth), config.lambda_edges),
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
        shares, bins = (p, 1.0 - p), cluster_bins(sample, self.config)
        alone, *as_kind = self.sum_cells(sample).T
        cells = alone + p * as_kind[0] + (1.0 - p) * as_kind[1]
        isolation, e_em = (
            np.asarray(sample[name], dtype=np.float64) for name in ("cluster_ISOLATION", "clusterE")
        )
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

    def sum_cells(self, sample: Sample) -> NDArray[np.float64]:
        """GeV of the cells left alone, of the others as neutral, of the others as charged, shape
        (n_clusters, 3).
        """
        return sum_weighted(
            sample.offsets,
            cell_rows(sample),
            sample.cells["cluster_cell_E"],
            cluster_bins(sample, self.config)[1],
            *geo_bins(sample.geo, self.config),
            self.config.density_edges,
            self.weights,
        )

    def save(self, path: str | Path) -> None:
        """Write all tables as one file of correctionlib, JSON of its schema version 2, which other
        programs can evaluate: a correction each with named inputs in explicit bins, an input beyond
        an axis takes its first or last bin (https://cms-nanoaod.github.io/correctionlib).
        """
        provenance = {**self.provenance, "config": dataclasses.asdict(self.config)}
        book = schemav2.CorrectionSet(
            schema_version=2,
            description=f"{_DESCRIPTION}\n{_PROVENANCE}{json.dumps(provenance, sort_keys=True)}",
            corrections=self.corrections(),
        )
        write_text(path, book.model_dump_json(indent=1, exclude_unset=True) + "\n")

    def corrections(self) -> list[schemav2.Correction]:
        """The tables one by one, as they are written."""
        config = self.config
        cells = [("abs_eta", "|eta| of the cell", config.cell_eta_edges)]
        cells += [(*_LOG_E, config.energy_edges)]
        clusters = [("abs_eta", "|clusterEta|", config.cluster_eta_edges)]
        clusters += [(*_LOG_E, config.energy_edges), (*_LAMBDA, config.lambda_edges)]
        p_em = self.likelihood
        axes = [(*names, edges) for names, edges in zip(AXES, p_em.edges, strict=True)]
        found = [_correction("p_em", "EM probability of a cluster", "P_EM", axes, p_em.content)]
        for kind, of_kind in zip(KINDS, self.weights, strict=True):
            for layer, edges, content in zip(
                LAYER_NAMES, config.density_edges, of_kind, strict=True
            ):
                text = (
                    f"weight of a cell of {layer} above {config.cell_cut:g} sigma in clusters of "
                    f"{kind} pions"
                )
                output, axes = "true deposit over measured energy", [*cells, (*_DENSITY, edges)]
                found.append(_correction(f"weight_{kind}_{layer}", text, output, axes, content))
        for name, text, output, table in (
            (
                "ooc",
                "out of cluster",
                "GeV out of the cluster, over isolation x clusterE",
                self.ooc,
            ),
            ("dm", "dead material", "factor - 1", self.dm),
        ):
            for kind, content in zip(KINDS, table, strict=True):
                words = f"{text}, {kind} pions"
                found.append(_correction(f"{name}_{kind}", words, output, clusters, content))
        return found

    @classmethod
    def load(cls, path: str | Path) -> LcwTables:
        """Tables of a file of `save`.

        Raises
        ------
        BadFileError
            If the file is missing, broken, of another version or incomplete; it is named.
        """
        try:
            book = schemav2.CorrectionSet.model_validate_json(Path(path).read_text("utf-8"))
            stored = {correction.name: correction for correction in book.corrections}
            provenance = json.loads((book.description or "").partition(_PROVENANCE)[2])
            config = _CONFIG.validate_python(provenance.pop("config"))
            content = {name: _content(correction.data) for name, correction in stored.items()}
            weights = [[content[f"weight_{kind}_{x}"] for x in LAYER_NAMES] for kind in KINDS]
            ooc, dm = ([content[f"{name}_{kind}"] for kind in KINDS] for name in ("ooc", "dm"))
            p_em = EmLikelihood(config.likelihood.edges, content["p_em"])
            tables = cls(p_em, np.array(weights), np.array(ooc), np.array(dm), config, provenance)
        except (OSError, AttributeError, KeyError, ValueError, TypeError, PfcalibError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadFileError(f"{path}: not tables of local cell weighting: {what}") from error
        for expected in tables.corrections():
            found = stored[expected.name]
            if (found.version, found.data) != (expected.version, expected.data):
                raise BadFileError(
                    f"{path}: {expected.name} has other edges than the configuration in the "
                    f"description, does not clamp, or is not of version {VERSION}: derive the "
                    "tables anew"
                )
        return tables


def _correction(
    name: str,
    text: str,
    output: str,
    axes: Sequence[tuple[str, str, NDArray[np.float64]]],
    content: NDArray[np.float64],
) -> schemav2.Correction:
    """A table whose axes have name, meaning and edges."""
    return schemav2.Correction(
        name=name,
        description=text,
        version=VERSION,
        inputs=[schemav2.Variable(name=n, type="real", description=t) for n, t, _ in axes],
        output=schemav2.Variable(name="value", type="real", description=output),
        data=schemav2.MultiBinning(
            nodetype="multibinning",
            inputs=[axis[0] for axis in axes],
            edges=[edges.tolist() for _, _, edges in axes],
            content=[*content.ravel().tolist()],
            flow="clamp",
        ),
    )


def _content(data: Any) -> NDArray[np.float64]:
    """Values of a table in the shape of its axes."""
    return np.reshape(data.content, [len(edges) - 1 for edges in data.edges]).astype(np.float64)


_CONFIG = pydantic.TypeAdapter(LcwConfig)


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
