"""Blocks of one material cut into thin layers, one wide cell each, so that a shower's profile can
be read off cell by cell.
"""

from __future__ import annotations

import numpy as np

from pfcalib.geometry import WINDOW
from pfcalib.simulation.detector import GridArrays, Slabs, build_slabs
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.kernels import DENSITY, Scratch, Setup, new_scratch
from pfcalib.simulation.parameters import ShowerConfig

MATERIALS = {"argon": "PreSamplerB", "lead-argon": "EMB2", "iron-scintillator": "TileBar1"}
LAYER_NAMES = [layer.name for layer in WINDOW.layers]


def material(name: str) -> dict[str, float]:
    """Everything that the slabs of the calorimeter say about a material."""
    slabs = build_slabs(WINDOW)
    slab = int(np.flatnonzero(slabs.layer == LAYER_NAMES.index(MATERIALS[name]))[0])
    return {field: float(getattr(slabs, field)[slab]) for field in Slabs._fields}


def build_block(
    name: str,
    edges: np.ndarray,
    config: ShowerConfig,
    *,
    spots_per_gev: float,
    first_layer: int = 2,
) -> tuple[Setup, Scratch]:
    """A block with slabs between the edges, in mm of depth; layers are counted from first_layer on,
    since layer 1 sends albedo back.
    """
    n = len(edges) - 1
    properties = {field: np.full(n, value) for field, value in material(name).items()}
    slabs = Slabs(
        **properties
        | {
            "x_in": edges[:-1].copy(),
            "x_out": edges[1:].copy(),
            "layer": first_layer + np.arange(n),
        }
    )
    n_layers = first_layer + n
    ones, wide = np.ones(n_layers, np.int64), np.full(n_layers, 40.0)
    grid = GridArrays(-20.0, -20.0, False, np.arange(n_layers + 1), ones, ones, wide, wide)
    scratch = new_scratch(n_layers)
    scratch.event[DENSITY] = spots_per_gev
    return Setup(slabs, grid, config), scratch


def truth(hits: Hits) -> np.ndarray:
    """True energy of each hit in GeV: all four components."""
    return hits.em + hits.non_em + hits.invisible + hits.escaped


def per_layer(hits: Hits, values: np.ndarray, grid=WINDOW) -> np.ndarray:
    """Sums over the cells of each layer, shape (n_events, n_layers)."""
    key = hits.event * grid.n_layers + grid.layer[hits.cell]
    return np.bincount(key, values, hits.n_events * grid.n_layers).reshape(-1, grid.n_layers)


def signal(hits: Hits) -> np.ndarray:
    """Signal of each event in GeV at the EM scale, shape (n_events,)."""
    return np.bincount(hits.event, hits.signal, hits.n_events)
