"""Every quantity of a sample once: its name in files, symbol, unit, dtype and meaning; axis labels
are made from it.

Scalar names are those of the public ``ClusterTree`` and ``MLTree`` ntuples; pfcalib's own additions
follow the same pattern.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# of EDM4hep's subdetectorEnergies, in the order of Pandora
SUBDETECTORS = ("ECAL", "HCAL", "YOKE", "LCAL", "LHCAL", "BCAL")
BEAM = 7000.0  # GeV: no energy of a collision is above it
MEV = 1e-3  # GeV
SAMPLINGS = (  # ATLAS CaloSampling: the number is the place
    *("PreSamplerB", "EMB1", "EMB2", "EMB3", "PreSamplerE", "EME1", "EME2", "EME3"),
    *("HEC0", "HEC1", "HEC2", "HEC3", "TileBar0", "TileBar1", "TileBar2"),
    *("TileGap1", "TileGap2", "TileGap3", "TileExt0", "TileExt1", "TileExt2"),
    *("FCAL0", "FCAL1", "FCAL2", "MINIFCAL0", "MINIFCAL1", "MINIFCAL2", "MINIFCAL3"),
)
LAYER_NAMES = ("PreSamplerB", "EMB1", "EMB2", "EMB3", "TileBar0", "TileBar1", "TileBar2")


@dataclasses.dataclass(frozen=True)
class Column:
    """One branch of a sample.

    >>> COLUMNS["truthE"].label
    '$E_\\\\mathrm{true}$ [GeV]'
    """

    name: str
    symbol: str
    unit: str  # empty for a pure number
    dtype: str
    meaning: str
    jagged: bool = False  # one value a cell of the cluster

    @property
    def label(self) -> str:
        """Axis label: symbol and unit."""
        return f"{self.symbol} [{self.unit}]" if self.unit else self.symbol

    @property
    def in_gev(self) -> bool:
        """True for an energy or an energy density."""
        return self.unit.startswith("GeV")

    @property
    def limits(self) -> tuple[float, float]:
        """Between which values it lies in any detector, in its unit."""
        return _LIMITS.get(self.name) or _LIMITS_OF_UNIT.get(self.unit, (-np.inf, np.inf))

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)


_LIMITS_OF_UNIT = {
    "GeV": (-BEAM, BEAM),
    "rad": (-2.0 * np.pi, 2.0 * np.pi),
    "mm": (-2e4, 2e4),
    "mm$^2$": (0.0, 4e8),
}
_SHARES = ("ISOLATION", "LATERAL", "LONGITUDINAL", "PTD", "EM_PROBABILITY")
_LIMITS = {
    "truthEta": (-20.0, 20.0),
    "clusterEta": (-6.0, 6.0),
    "cluster_DELTA_ALPHA": (0.0, np.pi),
    **{f"cluster_{name}": (0.0, 1.0) for name in _SHARES},
    **{f"cluster_ENG_FRAC_{name}": (0.0, 1.0) for name in ("EM", "MAX", "CORE")},
}


def _f(name: str, symbol: str, unit: str, meaning: str) -> Column:
    return Column(name, symbol, unit, "float32", meaning)


def _cell(name: str, symbol: str, meaning: str) -> Column:
    return Column(name, symbol, "GeV", "float32", meaning, jagged=True)


_EVENT = (
    Column("eventNumber", "event", "", "int64", "event; samples are split by it, never by cluster"),
    Column(
        "truthPdgId",
        "PDG id",
        "",
        "int32",
        "particle that was shot: 111 pi0, 211 pi+, -211 pi-, 22, 11",
    ),
    _f("truthE", r"$E_\mathrm{true}$", "GeV", "total energy of the particle at the origin"),
    _f("truthPt", r"$p_\mathrm{T}^\mathrm{true}$", "GeV", "its transverse momentum"),
    _f("truthEta", r"$\eta_\mathrm{true}$", "", "its pseudorapidity at the origin"),
    _f("truthPhi", r"$\phi_\mathrm{true}$", "rad", "its azimuth at the origin"),
    Column("nCluster", "clusters", "", "int32", "clusters in the event before any selection"),
    Column(
        "clusterIndex", "cluster", "", "int32", "place of the cluster in the event, falling energy"
    ),
)
_CLUSTER = (
    _f("clusterE", r"$E^\mathrm{EM}_\mathrm{cluster}$", "GeV", "energy at the EM scale"),
    _f("clusterPt", r"$p_\mathrm{T}^\mathrm{cluster}$", "GeV", "clusterE / cosh(clusterEta)"),
    _f("clusterEta", r"$\eta_\mathrm{cluster}$", "", "barycentre, weighted by |E|"),
    _f("clusterPhi", r"$\phi_\mathrm{cluster}$", "rad", "barycentre, weighted by |E|"),
    Column("cluster_nCells", "cells", "", "int32", "cells of the cluster, shared ones included"),
    _f(
        "cluster_sumCellE",
        r"$\sum E_\mathrm{cell}$",
        "GeV",
        "sum of cluster_cell_E over the stored cells",
    ),
)
_TRUTH = (
    _f(
        "cluster_ENG_CALIB_TOT",
        r"$E_\mathrm{dep}$",
        "GeV",
        "true energy in the cells of the cluster: EM, non-EM, invisible, escaped",
    ),
    _f("cluster_ENG_CALIB_EM", r"$E_\mathrm{dep}^\mathrm{EM}$", "GeV", "its electromagnetic part"),
    _f(
        "cluster_ENG_CALIB_OUT_T",
        r"$E_\mathrm{out}$",
        "GeV",
        "true energy in cells of no cluster, shared by deposit among the event's clusters",
    ),
    _f(
        "cluster_ENG_CALIB_DEAD_TOT",
        r"$E_\mathrm{dead}$",
        "GeV",
        "true energy in dead material, shared likewise",
    ),
)
_MOMENTS = (
    _f("cluster_CENTER_MAG", r"$|\vec c|$", "mm", "distance of the centre from the origin"),
    _f(
        "cluster_CENTER_LAMBDA",
        r"$\lambda_\mathrm{centre}$",
        "mm",
        "depth of the centre along the shower axis from the front of the calorimeter",
    ),
    _f(
        "cluster_FIRST_ENG_DENS",
        r"$\langle\rho\rangle$",
        "GeV/mm$^3$",
        "energy-weighted mean of the cells' energy density",
    ),
    _f(
        "cluster_ISOLATION",
        "isolation",
        "",
        "energy-weighted share of unclustered cells next to the border, per sampling",
    ),
    _f("cluster_LATERAL", "lateral", "", "normalised lateral moment, 0 (narrow) to 1"),
    _f(
        "cluster_LONGITUDINAL", "longitudinal", "", "normalised longitudinal moment, 0 (short) to 1"
    ),
    _f(
        "cluster_SECOND_R",
        r"$\langle r^2\rangle$",
        "mm$^2$",
        "second moment of the distance to the shower axis",
    ),
    _f(
        "cluster_SECOND_LAMBDA",
        r"$\langle\lambda^2\rangle$",
        "mm$^2$",
        "second moment along the shower axis, from the centre",
    ),
    _f(
        "cluster_DELTA_ALPHA",
        r"$\Delta\alpha$",
        "rad",
        "angle between the shower axis and the direction from the origin",
    ),
    _f(
        "cluster_SIGNIFICANCE",
        r"$E/\sigma$",
        "",
        "clusterE over the noise of its cells in quadrature",
    ),
    _f(
        "cluster_CELL_SIGNIFICANCE",
        r"$(E/\sigma)_\mathrm{max}$",
        "",
        "E/sigma of the cell of largest |E|/sigma",
    ),
    _f("cluster_PTD", r"$p_\mathrm{T}D$", "", "sqrt(sum E^2) / sum |E| of the cells"),
    _f(
        "cluster_ENG_FRAC_EM",
        r"$f_\mathrm{EM\ layers}$",
        "",
        "share of the positive energy in the EM layers",
    ),
    _f(
        "cluster_ENG_FRAC_MAX",
        r"$f_\mathrm{max}$",
        "",
        "share of the positive energy in the most energetic cell",
    ),
    _f(
        "cluster_ENG_FRAC_CORE",
        r"$f_\mathrm{core}$",
        "",
        "share of the positive energy in the hottest cell of each sampling, summed",
    ),
    _f("cluster_ENG_POS", r"$E_\mathrm{pos}$", "GeV", "sum of the positive cells"),
    _f(
        "cluster_MAX_DENS", r"$\rho_\mathrm{max}$", "GeV/mm$^3$", "largest energy density of a cell"
    ),
)
_WIDTHS = tuple(
    _f(
        f"cluster_WIDTH_ETA_{name}",
        rf"$\sigma_\eta$ {name}",
        "",
        f"energy-weighted width in eta, {name}",
    )
    for name in LAYER_NAMES
)
_LAYER_E = tuple(
    _f(f"cluster_E_{name}", rf"$E$ {name}", "GeV", f"energy at the EM scale in {name}")
    for name in LAYER_NAMES
)
_CELLS = (
    Column("cluster_cell_ID", "cell", "", "uint64", "cell of CellGeo", jagged=True),
    _cell(
        "cluster_cell_E",
        r"$E_\mathrm{cell}$",
        "EM-scale cell energy times the cluster's share of the cell",
    ),
    _cell(
        "cluster_cell_hitsE_EM", r"$E_\mathrm{cell}^\mathrm{EM}$", "true EM energy times the share"
    ),
    _cell(
        "cluster_cell_hitsE_nonEM",
        r"$E_\mathrm{cell}^\mathrm{non-EM}$",
        "true visible non-EM energy times the share",
    ),
    _cell(
        "cluster_cell_hitsE_Invisible",
        r"$E_\mathrm{cell}^\mathrm{inv}$",
        "true invisible energy times the share",
    ),
    _cell(
        "cluster_cell_hitsE_Escaped",
        r"$E_\mathrm{cell}^\mathrm{esc}$",
        "true escaped energy times the share",
    ),
)
_EXTRA = (
    Column(
        "sampleNumber",
        "sample",
        "",
        "int32",
        "place of the file among those read or converted; an event is (sampleNumber, eventNumber)",
    ),
    _f(
        "clusterECalib",
        r"$E^\mathrm{LCW}_\mathrm{cluster}$",
        "GeV",
        "energy after the experiment's own local calibration",
    ),
    _f("cluster_EM_PROBABILITY", r"$p_\mathrm{EM}$", "", "its likelihood to be electromagnetic"),
    _f("cluster_HAD_WEIGHT", r"$w_\mathrm{had}$", "", "its hadronic weight"),
    _f("cluster_OOC_WEIGHT", r"$w_\mathrm{ooc}$", "", "its weight for energy out of the cluster"),
    _f("cluster_DM_WEIGHT", r"$w_\mathrm{dm}$", "", "its weight for energy in dead material"),
    *(_f(f"cluster_E_{name}", f"$E$ {name}", "GeV", f"energy in {name}") for name in SUBDETECTORS),
)

_OWN = (*_EVENT, *_CLUSTER, *_TRUTH, *_MOMENTS, *_WIDTHS, *_LAYER_E, *_CELLS)
ALL = (*_OWN, *_EXTRA)
COLUMNS = {column.name: column for column in ALL}
SCALARS = tuple(column.name for column in _OWN if not column.jagged)
# scalars that files of others have; pfcalib's own samples lack them
EXTRA = tuple(column.name for column in _EXTRA)
JAGGED = tuple(column.name for column in ALL if column.jagged)
# what clustering.moments returns, in this order
MOMENTS = tuple(column.name for column in (*_MOMENTS, *_WIDTHS, *_LAYER_E))
CELL_GEO = {  # branch of CellGeo: dtype
    "cell_geo_ID": "uint64",
    "cell_geo_sampling": "int32",
    "cell_geo_eta": "float32",
    "cell_geo_phi": "float32",
    "cell_geo_rPerp": "float32",
    "cell_geo_deta": "float32",
    "cell_geo_dphi": "float32",
    "cell_geo_volume": "float32",
    "cell_geo_sigma": "float32",
}


def label(name: str) -> str:
    """Axis label of a column."""
    return COLUMNS[name].label
