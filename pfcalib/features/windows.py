"""Elements of events, tracks and clusters, as one network for particle flow takes them: what it
knows of each, and windows of neighbours of a fixed number, so that its time grows with the number
of elements and not with its square.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError

N_LAYERS = len(LAYER_NAMES)
# what an element is, or stands for; the order is that of the output of a network
LABELS = (
    "nothing", "pile-up", "charged hadron", "photon", "neutral hadron", "electron", "muon",
)  # fmt: skip
NOTHING, PILE_UP, CHARGED, PHOTON, NEUTRAL, ELECTRON, MUON = range(len(LABELS))
# flags; energies in GeV, which enter a network as logarithms; lengths in eta and phi
FLAGS = ("is_track", "is_cluster", "hard", "pile_up")  # the last two of tracks, by their vertex
ENERGIES = (
    "energy",  # sqrt(p^2 + m^2) of a track as a pion, calibrated energy of a cluster, above 0
    "em",  # of a cluster at the EM scale
    "pt",  # of a track
    "n_cells",  # of a cluster
    "hard_momentum",  # of other tracks of the hard scattering within dR < 0.1
    "pile_up_momentum",  # of other tracks of other vertices, likewise
    *(f"energy_{name}" for name in LAYER_NAMES),  # of a cluster; around a track within dR < 0.1
    *(f"core_{name}" for name in LAYER_NAMES),  # around a track within dR < 0.04
)
LENGTHS = (
    "eta",  # of the barycentre of a cluster, of a track at EMB2 or, without, at the origin
    "phi",  # likewise; in a window from its centre
    "bend",  # phi of a track at the origin less that above
    "tilt",  # the same in eta
    "width_eta",  # of the cells of a cluster, weighted by abs(E)
    "width_phi",
    *(f"eta_{name}" for name in LAYER_NAMES),  # of its cells, or of a track, from the above
    *(f"phi_{name}" for name in LAYER_NAMES),
)
ELEMENT_COLUMNS = (*FLAGS, *ENERGIES, *LENGTHS)
ETA, PHI = (ELEMENT_COLUMNS.index(name) for name in ("eta", "phi"))
# what a network says of an element: probabilities of the labels, energy over that of the element,
# direction from that of the element at the origin, share of other collisions in a cluster
OUTPUTS = (*LABELS, "energy", "d_eta", "d_phi", "pile_up")
# what it is taught: the label, the same numbers, the energy of the element in GeV, and its weight
TARGETS = ("label", *OUTPUTS[len(LABELS) :], "scale", "weight")


class Windows(NamedTuple):
    """Neighbouring elements, those that a network speaks of and those that it only looks at."""

    rows: NDArray[np.int64]  # (n_windows, n_core + n_halo) row of the element, -1 for none
    is_core: NDArray[np.bool_]  # the same shape; each element is the core of one window
    phi: NDArray[np.float64]  # (n_windows,) rad, of the centre


def cut_windows(eta: ArrayLike, phi: ArrayLike, *, n_core: int = 64, n_halo: int = 64) -> Windows:
    """Cut an event into boxes of about equally many elements, at most n_core, along the longer side
    each time, and give each the n_halo elements outside that lie nearest to the box.

    Parameters
    ----------
    eta, phi : array_like, shape (n,)
        phi in rad, -pi to pi.
    n_core, n_halo : int

    Raises
    ------
    ConfigError
        If a number is out of range.

    >>> windows = cut_windows([0.0, 0.1, 0.5], [3.1, -3.1, 3.1], n_core=2, n_halo=1)
    >>> windows.rows.tolist(), windows.is_core.sum(axis=1).tolist()
    ([[1, 0, -1], [0, 2, 1]], [1, 2])
    """
    if n_core < 1 or n_halo < 0:
        raise ConfigError(f"windows: n_core = {n_core}, n_halo = {n_halo}, expected above 0, not")
    place = np.column_stack([np.asarray(eta, dtype=np.float64), np.asarray(phi, dtype=np.float64)])
    n = len(place)
    boxes = _boxes(place, np.arange(n), -(-n // n_core)) if n else []
    found = np.full((len(boxes), n_core + n_halo), -1)
    is_core, centre = np.zeros(found.shape, dtype=np.bool_), np.zeros(len(boxes))
    for i, rows in enumerate(boxes):
        low, high = place[rows].min(axis=0), place[rows].max(axis=0)
        middle = 0.5 * (low + high)
        away = place - middle
        away[:, 1] = np.mod(away[:, 1] + np.pi, 2.0 * np.pi) - np.pi
        square = np.sum(np.maximum(np.abs(away) - 0.5 * (high - low), 0.0) ** 2, axis=1)
        square[rows] = np.inf
        n_near = min(n_halo, n - len(rows))
        halo = np.argpartition(square, n_near - 1)[:n_near] if n_near else rows[:0]
        found[i, : len(rows) + n_near] = np.concatenate([rows, halo])
        is_core[i, : len(rows)] = True
        centre[i] = middle[1]
    return Windows(found, is_core, centre)


def _boxes(
    place: NDArray[np.float64], rows: NDArray[np.int64], n_boxes: int
) -> list[NDArray[np.int64]]:
    """Rows of each of n_boxes boxes."""
    if n_boxes == 1:
        return [rows]
    axis = int(np.argmax(np.ptp(place[rows], axis=0)))
    n_left = n_boxes // 2
    order = rows[np.argsort(place[rows, axis], kind="stable")]
    cut = len(rows) * n_left // n_boxes
    return [*_boxes(place, order[:cut], n_left), *_boxes(place, order[cut:], n_boxes - n_left)]


def write_windows(
    columns: NDArray[np.float32], windows: Windows, rows: NDArray[np.integer] | slice = slice(None)
) -> NDArray[np.float32]:
    """Some windows as a network takes them, phi from the centre of each and zeros where there is no
    element.

    Parameters
    ----------
    columns : ndarray of float32, shape (n, len(ELEMENT_COLUMNS))
    windows : Windows
    rows : array of int or slice
        Of the windows.

    Returns
    -------
    ndarray of float32, shape (n_rows, n_core + n_halo, len(ELEMENT_COLUMNS))
    """
    index = windows.rows[rows]
    found = np.where((index >= 0)[..., None], columns[index], np.float32(0.0))
    phi = np.mod(found[..., PHI] - windows.phi[rows, None] + np.pi, 2.0 * np.pi) - np.pi
    found[..., PHI] = np.where(index >= 0, phi, 0.0)
    return found
