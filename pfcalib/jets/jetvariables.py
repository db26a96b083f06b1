"""What a calibration may know of a jet besides its momentum: the variables of the global sequential
calibration (arXiv:2007.02645), and its constituents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.rings import RingCells
from pfcalib.columns import LAYER_NAMES
from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import HARD_SCATTER, Event
from pfcalib.particleflow.flow import FlowObjects, flow_inputs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TRACK_PT = 1.0  # GeV of the tracks that are counted and whose width is taken
SHARE = 0.9  # of the pT of a jet that so many of its constituents carry
LAYERS = tuple(f"f_{name}" for name in LAYER_NAMES)  # shares of the energy of the calorimeter
VARIABLES = ("pt_tracks", "pt_pile_up", "n_track", "w_track", "n_90", *LAYERS)
# of the published sequence, in its order: the last stands for the segments in muon chambers behind
# a jet, which this detector lacks
SEQUENCE = ("f_charged", "f_TileBar0", "f_EMB3", "n_track", "w_track", "f_TileBar2")
POINT = ("pt", "d_eta", "d_phi", "kind", "em_share")  # GeV, distances, kind, 0 to 1
NEUTRAL, CHARGED, PILE_UP = 0, 1, 2  # kinds of points: the last are tracks of other vertices
_EM = np.array([layer.is_em for layer in BARREL.layers])


class Seen(NamedTuple):
    """One event, its objects, and what jets are made of, as `flow.flow_inputs` gives it."""

    event: Event
    objects: FlowObjects
    kind: IntArray  # (n_inputs,) NEUTRAL or CHARGED
    em_share: FloatArray  # (n_inputs,) of the cluster that a neutral input comes from; 0 of tracks


def see(event: Event, objects: FlowObjects, cells: RingCells) -> Seen:
    """The inputs of the jets of an event beside their momenta, in the same order."""
    clusters = event.clusters
    owner = np.repeat(np.arange(len(clusters.energy)), np.diff(clusters.offsets))
    layer = cells.layer[clusters.cell]
    size = np.abs(clusters.cell_energy)
    total, em = (
        np.bincount(owner, weight, len(clusters.energy))
        for weight in (size, size * ((layer >= 0) & _EM[layer]))
    )
    share = em / np.maximum(total, 1e-12)
    kind = flow_inputs(event, objects).is_charged.astype(np.int64)
    em_share = np.zeros(len(kind))
    em_share[kind == NEUTRAL] = share[objects.neutrals.energy > 0.0]
    return Seen(event, objects, kind, em_share)


def jet_variables(
    seen: Seen, cells: RingCells, eta: float, phi: float, members: FloatArray, radius: float
) -> dict[str, float]:
    """Variables of one jet at the EM scale; tracks and cells of clusters lie within the radius.

    Parameters
    ----------
    seen : Seen
    cells : RingCells
    eta, phi : float, rad
        Its axis.
    members : ndarray, shape (n,), GeV
        pT of its constituents.
    radius : float

    Returns
    -------
    dict
        VARIABLES: ``pt_tracks`` and ``pt_pile_up`` (GeV, all tracks of the hard scattering and of
        other vertices), ``n_track``, ``w_track`` (mean distance weighted by pT), ``n_90``
        (constituents that carry SHARE), and LAYERS.
    """
    tracks, clusters = seen.event.tracks, seen.event.clusters
    away = distance(tracks.eta, tracks.phi, eta, phi)
    own = tracks.vertex == HARD_SCATTER
    counted = own & (away < radius) & (tracks.pt > TRACK_PT)
    pt = tracks.pt[counted]
    falling = np.cumsum(np.sort(members)[::-1])
    found = {
        "pt_tracks": float(tracks.pt[own & (away < radius)].sum()),
        "pt_pile_up": float(tracks.pt[~own & (away < radius)].sum()),
        "n_track": float(len(pt)),
        "w_track": float(pt @ away[counted] / pt.sum()) if len(pt) else 0.0,
        "n_90": float(np.searchsorted(falling, SHARE * falling[-1]) + 1),
    }
    inside = distance(cells.eta[clusters.cell], cells.phi[clusters.cell], eta, phi) < radius
    layer = cells.layer[clusters.cell[inside]]
    energy = clusters.cell_energy[inside]
    sums = np.bincount(layer[layer >= 0], energy[layer >= 0], len(LAYERS))
    shares = np.clip(sums / max(float(sums.sum()), 1e-3), -0.5, 1.5)
    return found | dict(zip(LAYERS, shares.tolist(), strict=True))


def jet_points(
    seen: Seen, eta: float, phi: float, rows: IntArray, momenta: FloatArray, radius: float,
    n_points: int,
) -> NDArray[np.float32]:  # fmt: skip
    """Constituents of a jet, and tracks of other vertices within the radius, by falling pT.

    Parameters
    ----------
    seen : Seen
    eta, phi : float, rad
        Axis of the jet.
    rows : ndarray of int, shape (n,)
        Its constituents among the inputs.
    momenta : ndarray, shape (n_inputs, 3)
        pT in GeV, eta and phi of the inputs.
    radius : float
    n_points : int
        At most; the softest are left out.

    Returns
    -------
    ndarray of float32, shape (n, len(POINT))
    """
    tracks = seen.event.tracks
    others = distance(tracks.eta, tracks.phi, eta, phi) < radius
    others &= tracks.vertex != HARD_SCATTER
    pt, at_eta, at_phi = (
        np.concatenate([column[rows], more[others]])
        for column, more in zip(momenta.T, (tracks.pt, tracks.eta, tracks.phi), strict=True)
    )
    n_others = int(others.sum())
    kind = np.append(seen.kind[rows], np.full(n_others, PILE_UP))
    share = np.append(seen.em_share[rows], np.zeros(n_others))
    points = np.column_stack([pt, at_eta - eta, wrapped(at_phi - phi), kind, share])
    return points[np.argsort(-pt, kind="stable")[:n_points]].astype(np.float32)


def distance(eta: FloatArray, phi: FloatArray, at_eta: float, at_phi: float) -> FloatArray:
    """Distances in (eta, phi) from one point."""
    return np.asarray(np.hypot(eta - at_eta, wrapped(phi - at_phi)))


def wrapped(phi: FloatArray) -> FloatArray:
    """Angles in -pi to pi.

    >>> float(wrapped(np.array([4.0])).round(2)[0])
    -2.28
    """
    return np.asarray(np.mod(phi + np.pi, 2.0 * np.pi) - np.pi)
