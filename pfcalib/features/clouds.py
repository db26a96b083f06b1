"""Clouds of points: the cells of a cluster, or those around a track and the track itself, kept as
cells and energies and written out batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import SAMPLING
from pfcalib.geometry import BARREL
from pfcalib.samples.schema import CellGeo, Sample

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_LAYERS = len(LAYER_NAMES)
# GeV; energy over noise, 0 for tracks; distances from the centre (phi in rad); place in
# columns.LAYER_NAMES; mm; width of the cell, 0 for tracks (phi in rad); 1 for points of the track
CLOUD_FEATURES = (
    *("energy", "significance", "d_eta", "d_phi", "layer", "r", "width_eta", "width_phi"),
    "is_track",
)
# as Athena's neural E/p has them: standardised, r > 0 for all but the padding
ATHENA_FEATURES = ("energy", "d_eta", "d_phi", "r", "is_track")
LAYOUTS = {"cells": CLOUD_FEATURES, "athena": ATHENA_FEATURES}
E_MEAN, E_WIDTH = -2.28525747, 2.01005066  # of ln(E / GeV), in Athena's layout
SCALE_ETA, SCALE_PHI, SCALE_R = 0.7, 0.69169774, 3630.0  # r in mm
MIN_CELL = 0.005  # GeV, softest cell of Athena's layout
_RADIUS = np.array([layer.r for layer in BARREL.layers], dtype=np.float64)  # mm


class Clouds(NamedTuple):
    """Any number of clouds; the cells of cloud i at offsets[i]:offsets[i + 1]."""

    cells: FloatArray  # (n_cells, 7) of the detector, see `cell_columns`
    offsets: IntArray  # (n + 1,)
    cell: NDArray[np.int32]  # (n_points,) row in `cells`
    energy: NDArray[np.float32]  # (n_points,) GeV
    centre: FloatArray  # (n, 2) eta and phi that distances are taken from
    # (n, 1 + 2 N_LAYERS) momentum in GeV of a track, its eta in each layer and its phi; NaN where
    # it does not reach a layer, or where there is none
    track: FloatArray

    @property
    def n_clouds(self) -> int:
        return len(self.centre)


def cell_columns(geo: CellGeo) -> FloatArray:
    """What clouds need of each cell: 1 / noise (0 without noise), eta, phi, place in
    `columns.LAYER_NAMES` (-1 for others), r in mm, and widths in eta and phi; shape (n_cells, 7).
    """
    layer = np.full(len(geo), -1.0)
    for i, name in enumerate(LAYER_NAMES):
        layer[geo.sampling == SAMPLING[name]] = i
    noise = geo.sigma.astype(np.float64)
    per_sigma = np.where(noise > 0.0, 1.0 / np.where(noise > 0.0, noise, 1.0), 0.0)
    return np.column_stack(
        [per_sigma, geo.eta, geo.phi, layer, geo.rPerp, geo.deta, geo.dphi]
    ).astype(np.float64)


def cluster_clouds(sample: Sample) -> Clouds:
    """Each cluster of a sample as a cloud around its barycentre.

    Parameters
    ----------
    sample : Sample
        With clusterEta, clusterPhi, cluster_cell_ID and cluster_cell_E.

    Raises
    ------
    ValidationError
        If a cell is not in CellGeo.
    """
    cell = sample.geo.rows(sample.cells["cluster_cell_ID"])
    if np.any(cell < 0):
        raise ValidationError(
            f"cell {sample.cells['cluster_cell_ID'][np.argmin(cell)]} is not in CellGeo"
        )
    centre = np.column_stack([sample["clusterEta"], sample["clusterPhi"]]).astype(np.float64)
    return Clouds(
        cell_columns(sample.geo),
        sample.offsets,
        cell.astype(np.int32),
        sample.cells["cluster_cell_E"].astype(np.float32),
        centre,
        np.full((len(sample), 1 + 2 * N_LAYERS), np.nan),
    )


def join_clouds(parts: Sequence[Clouds]) -> Clouds:
    """Clouds of several parts of a sample, which share their cells, one after the other."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    columns: list[Any] = [np.concatenate(column) for column in list(zip(*parts, strict=True))[2:]]
    return Clouds(parts[0].cells, offsets, *columns)


def count_points(clouds: Clouds) -> IntArray:
    """Most points that each cloud can have, the track's among them, shape (n,)."""
    reached = np.isfinite(clouds.track[:, 1 : 1 + N_LAYERS]).sum(axis=1)
    return np.diff(clouds.offsets) + reached


def write_points(
    clouds: Clouds, rows: NDArray[np.integer], n_points: int, *, layout: str = "cells"
) -> NDArray[np.float32]:
    """Clouds as a network takes them: cells by falling abs(E), then the track in each layer that it
    reaches, its momentum shared among them, then zeros. Where there are too many points the softest
    cells are left out, never the track.

    Parameters
    ----------
    clouds : Clouds
    rows : array of int, shape (n,)
    n_points : int
    layout : str
        ``cells``: columns CLOUD_FEATURES in physical units; ``athena``: ATHENA_FEATURES, cells of
        at least MIN_CELL alone.

    Returns
    -------
    array of float32, shape (n, n_points, n_features)

    Raises
    ------
    ConfigError
        If the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    points = np.zeros((len(rows), n_points, len(CLOUD_FEATURES)), dtype=np.float32)
    least = MIN_CELL if layout == "athena" else -np.inf
    _write(
        points, np.asarray(rows, dtype=np.int64), clouds.offsets, clouds.cell, clouds.energy,
        clouds.centre, clouds.track, clouds.cells, _RADIUS, least,
    )  # fmt: skip
    if layout == "cells":
        return points
    energy, d_eta, d_phi, r, is_track = points[..., [0, 2, 3, 5, 8]].transpose(2, 0, 1)
    filled = r > 0.0
    log_e = np.where(filled, (np.log(np.where(filled, energy, 1.0)) - E_MEAN) / E_WIDTH, 0.0)
    columns = [log_e, d_eta / SCALE_ETA, d_phi / SCALE_PHI, r / SCALE_R, is_track]
    return np.stack(columns, axis=-1).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _write(points, rows, offsets, cell, energy, centre, track, cells, radius, least):  # type: ignore[no-untyped-def] # pragma: no cover
    """Kernel of `write_points`."""
    n_layers = len(radius)
    for i in range(len(rows)):
        row = rows[i]
        start, stop = offsets[row], offsets[row + 1]
        n_reached = 0
        for layer in range(n_layers):
            n_reached += math.isfinite(track[row, 1 + layer])
        room = points.shape[1] - n_reached
        order = np.argsort(-np.abs(energy[start:stop]), kind="mergesort")
        n = 0
        for j in order:
            if n >= room:
                break
            e, c = energy[start + j], cell[start + j]
            if cells[c, 3] < 0.0 or e == 0.0 or e < least:
                continue
            here = points[i, n]
            here[0], here[1] = e, e * cells[c, 0]
            here[2], here[3] = _away(cells[c, 1], cells[c, 2], centre[row])
            here[4:8] = cells[c, 3:7]
            n += 1
        for layer in range(n_layers):
            if not math.isfinite(track[row, 1 + layer]) or n == points.shape[1]:
                continue
            here = points[i, n]
            here[0] = track[row, 0] / n_reached
            here[2], here[3] = _away(
                track[row, 1 + layer], track[row, 1 + n_layers + layer], centre[row]
            )
            here[4], here[5], here[8] = layer, radius[layer], 1.0
            n += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _away(eta, phi, centre):  # type: ignore[no-untyped-def] # pragma: no cover
    """Distances from a centre in eta and, brought into -pi to pi, phi."""
    d_phi = phi - centre[1]
    return eta - centre[0], d_phi - 2.0 * math.pi * math.floor(d_phi / (2.0 * math.pi) + 0.5)
