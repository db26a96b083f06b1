"""How close two shower simulations are: high-level moments of single showers, compared in bins of energy and by a classifier.

Both samples go through the same code; the figures of merit are ratios of means, differences of shares and the area under the ROC curve of
boosted trees that try to tell the simulations apart (0.5 means they cannot).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pfcalib.geometry import Grid
from pfcalib.samples.showers import Showers

E_EDGES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # GeV


def shower_moments(showers: Showers, grid: Grid, sigma: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Twenty and more moments of each shower.

    Parameters
    ----------
    showers : Showers
    grid : Grid
    sigma : ndarray, shape (n_cells,), GeV
        Noise of each cell; cells over three sigma are counted, no noise is added.

    Returns
    -------
    dict of ndarray, shape (n,)
        ``response``; ``share_<layer>``; ``width_eta_<layer>`` and ``width_phi_<layer>``, NaN in a layer without signal; ``n_cells``; ``max_share``,
        ``second_share`` of the two hottest cells; ``depth`` and ``depth_width`` in mm; ``offset_eta``, ``offset_phi`` of the barycentre in EMB2;
        ``core`` = share of EMB2 within 1.5 cells of the particle's direction.
    """
    n = len(showers.e_true)
    event = np.repeat(np.arange(n), np.diff(showers.offsets))
    cell, e = showers.cell, showers.signal
    layer = grid.layer[cell]
    total = np.maximum(np.bincount(event, e, n), 1e-9)
    key = event * grid.n_layers + layer

    def per_layer(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(key, weight, n * grid.n_layers).reshape(n, grid.n_layers)

    d_eta, d_phi = grid.eta[cell] - showers.eta[event], grid.phi[cell] - showers.phi[event]
    e_layer = per_layer(e)
    safe = np.where(e_layer > 1e-6, e_layer, np.nan)
    mean_eta, mean_phi = per_layer(e * d_eta) / safe, per_layer(e * d_phi) / safe
    out = {"response": np.bincount(event, e, n) / showers.e_true}
    out |= {f"share_{name.name}": e_layer[:, i] / total for i, name in enumerate(grid.layers)}
    for label, d, mean in (("eta", d_eta, mean_eta), ("phi", d_phi, mean_phi)):
        width = np.sqrt(np.maximum(per_layer(e * d * d) / safe - mean**2, 0.0))
        out |= {f"width_{label}_{name.name}": width[:, i] for i, name in enumerate(grid.layers)}
    out["n_cells"] = np.bincount(event, e > 3.0 * sigma[cell], n)
    order = np.lexsort((-e, event))
    start = np.searchsorted(event, np.arange(n))
    two = start[:, None] + np.arange(2)
    inside = two < showers.offsets[1:, None]
    hottest = np.where(inside, e[order][np.minimum(two, max(len(e) - 1, 0))], 0.0) if len(e) else np.zeros((n, 2))
    out["max_share"], out["second_share"] = hottest[:, 0] / total, hottest[:, 1] / total
    out["depth"] = np.bincount(event, e * grid.r[cell], n) / total
    out["depth_width"] = np.sqrt(np.maximum(np.bincount(event, e * grid.r[cell] ** 2, n) / total - out["depth"] ** 2, 0.0))
    out["offset_eta"], out["offset_phi"] = mean_eta[:, 2], mean_phi[:, 2]
    near = (layer == 2) & (np.abs(d_eta) < 1.5 * grid.layers[2].d_eta) & (np.abs(d_phi) < 1.5 * grid.layers[2].d_phi)
    out["core"] = np.bincount(event, e * near, n) / safe[:, 2]
    return out
