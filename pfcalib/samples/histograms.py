"""Histograms of a sample, filled chunk by chunk at bounded memory: energies, response, directions,
cells and layers.
"""

from __future__ import annotations

from typing import Any

import hist
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import SAMPLINGS
from pfcalib.samples.schema import Sample

_LAYER_PREFIX = "cluster_E_"


class SampleHistograms:
    """Histograms of everything that a page about a sample shows; values that are not finite are
    left out.

    The axes are fixed and fine, as nobody knows the ranges before a stream has ended; a figure
    merges bins and leaves out empty ends.

    Attributes
    ----------
    truth_energy, cluster_energy : hist.Hist
        Of truthE and clusterE in GeV, logarithmic axis; what is not positive counts below it.
    response : hist.Hist
        clusterE / truthE.
    directions : hist.Hist
        clusterEta and clusterPhi, in bins of 0.01; truthEta and truthPhi where showers have no
        direction of their own.
    directions_of : "cluster" or "truth"
    n_cells : hist.Hist
        Cells a cluster, in bins of whole numbers that widen.
    layer_energy : array of float64, shape (len(SAMPLINGS),)
        Energy by sampling, GeV, of all clusters together; of the cells where there are any, else of
        the columns cluster_E_<layer>.
    """

    def __init__(self) -> None:
        self.truth_energy = hist.Hist(  # GeV; 20 bins a decade
            hist.axis.Regular(160, 1e-3, 1e5, transform=hist.axis.transform.log)
        )
        self.cluster_energy = self.truth_energy.copy()
        self.response = hist.Hist(hist.axis.Regular(100, -0.5, 2.0))
        self.directions = hist.Hist(
            hist.axis.Regular(1000, -5.0, 5.0), hist.axis.Regular(630, -3.15, 3.15)
        )
        self.directions_of = "cluster"
        self.n_cells = hist.Hist(
            hist.axis.Variable(np.unique(np.round(np.geomspace(1.0, 5e5, 47))) - 0.5)
        )
        self.layer_energy = np.zeros(len(SAMPLINGS))

    def fill(self, sample: Sample) -> None:
        """Add the clusters of a chunk."""
        columns = sample.scalars
        none = np.zeros(0)
        self.truth_energy.fill(np.maximum(_finite(columns.get("truthE", none)), 0.0))
        self.cluster_energy.fill(np.maximum(_finite(columns.get("clusterE", none)), 0.0))
        if "truthE" in columns and "clusterE" in columns:
            e_true = columns["truthE"].astype(np.float64)
            known = (e_true > 0.0) & (e_true < np.inf)
            self.response.fill(_finite(columns["clusterE"][known] / e_true[known]))
        self.directions_of = "cluster" if "clusterEta" in columns else "truth"
        if {f"{self.directions_of}Eta", f"{self.directions_of}Phi"} <= columns.keys():
            eta, phi = (
                columns[f"{self.directions_of}{angle}"].astype(np.float64)
                for angle in ("Eta", "Phi")
            )
            good = np.isfinite(eta) & np.isfinite(phi)
            self.directions.fill(eta[good], phi[good])
        if "cluster_cell_ID" in sample.cells:
            self.n_cells.fill(np.diff(sample.offsets))
        elif "cluster_nCells" in columns:
            self.n_cells.fill(columns["cluster_nCells"])
        if {"cluster_cell_ID", "cluster_cell_E"} <= sample.cells.keys():
            rows = sample.geo.rows(sample.cells["cluster_cell_ID"])
            energy = sample.cells["cluster_cell_E"]
            good = (rows >= 0) & np.isfinite(energy)
            sampling = sample.geo.sampling[rows[good]]
            known = (sampling >= 0) & (sampling < len(SAMPLINGS))
            self.layer_energy += np.bincount(
                sampling[known], weights=energy[good][known], minlength=len(SAMPLINGS)
            )
            return
        for place, name in enumerate(SAMPLINGS):
            if _LAYER_PREFIX + name in sample.scalars:
                self.layer_energy[place] += _finite(sample[_LAYER_PREFIX + name]).sum()


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return values[np.isfinite(values)].astype(np.float64)
