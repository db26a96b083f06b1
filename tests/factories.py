"""Small synthetic samples whose content is known: a spot of energy around a point, no physics."""

from __future__ import annotations

import dataclasses

import numpy as np

from pfcalib.columns import COLUMNS, JAGGED, LAYER_NAMES, MOMENTS, SCALARS
from pfcalib.geometry import WINDOW, Grid
from pfcalib.samples.schema import CellGeo, Sample

_EM_SHARE = np.array([0.02, 0.35, 0.58, 0.05, 0.0, 0.0, 0.0])
_HADRON_SHARE = np.array([0.02, 0.13, 0.3, 0.1, 0.25, 0.15, 0.05])


def make_sample(
    rng: np.random.Generator,
    n_clusters: int,
    grid: Grid = WINDOW,
    *,
    max_cells: int = 60,
    clusters_per_event: int = 2,
) -> Sample:
    """Clusters of pi0 (narrow, in the EM layers) and charged pions (wide and deep), in turn by
    event; every column is filled.

    The cells of a cluster are distinct, positive and lie near its barycentre, so that a classifier
    has something to learn.
    """
    event = np.arange(n_clusters) // clusters_per_event
    em = event % 2 == 0
    energy = 10.0 ** rng.uniform(-0.2, 2.0, n_clusters)
    eta_max, phi_max = -grid.eta_min - 0.1, (np.pi if grid.wraps else -grid.phi_min - 0.1)
    eta, phi = (
        rng.uniform(-eta_max, eta_max, n_clusters),
        rng.uniform(-phi_max, phi_max, n_clusters),
    )
    owner, cell, cell_e = _spots(rng, grid, em, energy, eta, phi, max_cells)
    counts = np.bincount(owner, minlength=n_clusters)
    cluster_e = np.bincount(owner, weights=cell_e, minlength=n_clusters)
    scalars = {name: np.zeros(n_clusters, dtype=COLUMNS[name].dtype) for name in SCALARS}
    scalars |= {name: rng.uniform(0.1, 1.0, n_clusters).astype(np.float32) for name in MOMENTS}
    for i, name in enumerate(LAYER_NAMES):
        here = grid.layer[cell] == i
        scalars[f"cluster_E_{name}"] = np.bincount(
            owner[here], weights=cell_e[here], minlength=n_clusters
        ).astype(np.float32)
    known = {
        "eventNumber": event,
        "truthPdgId": np.where(em, 111, np.where(rng.random(n_clusters) < 0.5, 211, -211)),
        "truthE": energy,
        "truthEta": eta,
        "truthPhi": phi,
        "truthPt": energy / np.cosh(eta),
        "nCluster": np.full(n_clusters, clusters_per_event),
        "clusterIndex": np.arange(n_clusters) % clusters_per_event,
        "clusterE": cluster_e,
        "clusterPt": cluster_e / np.cosh(eta),
        "clusterEta": eta,
        "clusterPhi": phi,
        "cluster_nCells": counts,
        "cluster_sumCellE": cluster_e,
        "cluster_ENG_CALIB_TOT": cluster_e * np.where(em, 1.0, 1.3),
        "cluster_ENG_CALIB_EM": cluster_e * np.where(em, 1.0, 0.4),
    }
    scalars |= {
        name: np.asarray(array).astype(COLUMNS[name].dtype) for name, array in known.items()
    }
    truth = {
        "cluster_cell_hitsE_EM": np.where(em[owner], 1.0, 0.4),
        "cluster_cell_hitsE_nonEM": np.where(em[owner], 0.0, 0.9),
    }
    values = {"cluster_cell_ID": cell, "cluster_cell_E": cell_e} | {
        name: share * cell_e for name, share in truth.items()
    }
    cells = {
        name: np.asarray(values.get(name, np.zeros(len(cell)))).astype(COLUMNS[name].dtype)
        for name in JAGGED
    }
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Sample(
        scalars,
        offsets,
        cells,
        CellGeo.from_grid(grid, 0.02),
        {"generator": "synthetic", "seed": 1},
    )


def in_mev(sample: Sample) -> Sample:
    """The sample with all energies 1000 times as large."""

    def scaled(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        large = {name for name in arrays if COLUMNS[name].in_gev}
        return {name: a * np.float32(1e3 if name in large else 1) for name, a in arrays.items()}

    geo = dataclasses.replace(sample.geo, sigma=1e3 * sample.geo.sigma)
    cells = scaled(sample.cells) | {"cluster_cell_ID": sample.cells["cluster_cell_ID"]}
    return dataclasses.replace(sample, scalars=scaled(sample.scalars), cells=cells, geo=geo)


def _spots(
    rng: np.random.Generator,
    grid: Grid,
    em: np.ndarray,
    energy: np.ndarray,
    eta: np.ndarray,
    phi: np.ndarray,
    max_cells: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spots thrown around each cluster and summed in cells: cluster, cell and energy of each cell,
    sorted by cluster.
    """
    n = len(em)
    owner = np.repeat(np.arange(n), rng.integers(5, max_cells + 1, n))
    layer = np.where(
        em[owner],
        rng.choice(7, len(owner), p=_EM_SHARE),
        rng.choice(7, len(owner), p=_HADRON_SHARE),
    )
    width = np.where(em, 0.01, 0.03)[owner]
    at_eta, at_phi = (
        eta[owner] + width * rng.standard_normal(len(owner)),
        phi[owner] + width * rng.standard_normal(len(owner)),
    )
    cell = np.full(len(owner), -1)
    for i in range(grid.n_layers):
        cell = np.where(layer == i, grid.locate(i, at_eta, at_phi), cell)
    spots = np.bincount(owner, minlength=n)[owner]
    inside = cell >= 0
    key, inverse = np.unique(owner[inside] * grid.n_cells + cell[inside], return_inverse=True)
    cell_e = np.bincount(
        inverse, weights=(energy[owner] / spots)[inside] * rng.uniform(0.5, 1.5, int(inside.sum()))
    )
    return key // grid.n_cells, key % grid.n_cells, cell_e
