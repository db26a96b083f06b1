"""How close two shower simulations are: high-level moments of single showers, compared in bins of
energy and by a classifier.

Both samples go through the same code; the figures of merit are ratios of means, differences of
shares and the area under the ROC curve of boosted trees that try to tell the simulations apart (0.5
means they cannot).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pfcalib.geometry import Grid
from pfcalib.samples.showerfile import Showers

E_EDGES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # GeV
EMB2 = 2  # index of the layer


def shower_moments(
    showers: Showers, grid: Grid, sigma: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
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
        ``response``; ``share_<layer>``; ``width_eta_<layer>`` and ``width_phi_<layer>``, NaN in a
        layer without signal; ``n_cells``; ``max_share``, ``second_share`` of the two hottest cells;
        ``depth`` and ``depth_width`` in mm; ``offset_eta``, ``offset_phi`` of the barycentre in
        EMB2; ``core`` = share of EMB2 within 1.5 cells of the particle's direction. Shares of a
        shower without signal are 0.
    """
    n, cell, e = len(showers.e_true), showers.cell, showers.signal
    event = np.repeat(np.arange(n), np.diff(showers.offsets))
    d_eta, d_phi = grid.eta[cell] - showers.eta[event], grid.phi[cell] - showers.phi[event]
    key = event * grid.n_layers + grid.layer[cell]

    def per_layer(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return _sum(key, weight, n * grid.n_layers).reshape(n, grid.n_layers)

    e_total = _sum(event, e, n)
    total = np.maximum(e_total, 1e-9)
    e_layer = per_layer(e)
    safe = np.where(e_layer > 1e-6, e_layer, np.nan)
    out = {"response": e_total / showers.e_true}
    out |= {f"share_{layer.name}": e_layer[:, i] / total for i, layer in enumerate(grid.layers)}
    for label, d in (("eta", d_eta), ("phi", d_phi)):
        mean = per_layer(e * d) / safe
        width = np.sqrt(np.maximum(per_layer(e * d * d) / safe - mean**2, 0.0))
        out |= {f"width_{label}_{layer.name}": width[:, i] for i, layer in enumerate(grid.layers)}
        out[f"offset_{label}"] = mean[:, EMB2]
    out["n_cells"] = _sum(event, np.where(e > 3.0 * sigma[cell], 1.0, 0.0), n)
    hottest = _hottest(showers, event) / total[:, None]
    out["max_share"], out["second_share"] = hottest[:, 0], hottest[:, 1]
    out["depth"] = _sum(event, e * grid.r[cell], n) / total
    out["depth_width"] = np.sqrt(
        np.maximum(_sum(event, e * grid.r[cell] ** 2, n) / total - out["depth"] ** 2, 0.0)
    )
    middle = grid.layers[EMB2]
    near = (
        (grid.layer[cell] == EMB2)
        & (np.abs(d_eta) < 1.5 * middle.d_eta)
        & (np.abs(d_phi) < 1.5 * middle.d_phi)
    )
    out["core"] = _sum(event, e * near, n) / safe[:, EMB2]
    return out


def _sum(index: NDArray[np.int64], weight: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Sum of the weights of each index below n, shape (n,)."""
    return np.asarray(np.bincount(index, weight, n), dtype=np.float64)


def _hottest(showers: Showers, event: NDArray[np.int64]) -> NDArray[np.float64]:
    """Signals of the two hottest cells of each shower in GeV, shape (n, 2); 0 where there are fewer
    cells.
    """
    falling = np.append(showers.signal[np.lexsort((-showers.signal, event))], 0.0)
    place = showers.offsets[:-1, None] + np.arange(2)
    return np.where(
        place < showers.offsets[1:, None], falling[np.minimum(place, len(falling) - 1)], 0.0
    )
