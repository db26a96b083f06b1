"""Boxes on the ring of the barrel: overlap, suppression of double ones, pairing with the truth.

Places are in cells of EMB2, a box is (eta low, phi low, eta high, phi high), phi closes at N_PHI.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.photons.photonmaps import ETA_CELL, N_PHI, PHI_CELL

F64 = NDArray[np.float64]
IntArray = NDArray[np.int64]


@njit(cache=True)
def overlaps(one: F64, other: F64) -> F64:
    """Intersection over union of each box of the one with each of the other, shape (n, m).

    >>> one, other = np.array([[0.0, 0, 2, 2], [0, 255, 2, 257]]), np.array([[0.0, 0, 2, 2]])
    >>> overlaps(one, other).round(3).tolist()
    [[1.0], [0.333]]
    """
    found = np.zeros((len(one), len(other)))
    for i in range(len(one)):
        area = (one[i, 2] - one[i, 0]) * (one[i, 3] - one[i, 1])
        for j in range(len(other)):
            b = other[j]
            apart = 0.5 * (one[i, 1] + one[i, 3] - b[1] - b[3])
            turn = N_PHI * np.round(apart / N_PHI)
            eta = min(one[i, 2], b[2]) - max(one[i, 0], b[0])
            phi = min(one[i, 3], b[3] + turn) - max(one[i, 1], b[1] + turn)
            if eta > 0.0 and phi > 0.0:
                both = eta * phi
                found[i, j] = both / (area + (b[2] - b[0]) * (b[3] - b[1]) - both)
    return found


@njit(cache=True)
def suppress(box: F64, score: F64, largest: float) -> IntArray:
    """Places of the boxes that stay, falling in score: each throws out those below it that overlap
    with it by more than `largest`.
    """
    order = np.argsort(-score, kind="mergesort")
    stays = np.ones(len(order), np.bool_)
    for k in range(len(order)):
        if stays[k]:
            one = order[k : k + 1]
            lower = order[k + 1 :]
            stays[k + 1 :] &= overlaps(box[one], box[lower])[0] <= largest
    return order[stays]


def distances(one: F64, other: F64) -> F64:
    """Distance in (eta, phi) of each place of the one, cells, from each of the other, (n, m)."""
    apart = one[:, None] - other[None]
    phi = apart[..., 1] - N_PHI * np.round(apart[..., 1] / N_PHI)
    return np.asarray(np.hypot(ETA_CELL * apart[..., 0], PHI_CELL * phi))


def pair(found: F64, truth: F64, largest: float) -> IntArray:
    """For each place that was found the photon that is it, or -1: each in turn takes the nearest
    photon within `largest` in (eta, phi) that none before it has taken, so those that come first
    are paired alike whether the others are there or not.
    """
    partner, apart = np.full(len(found), -1), distances(found, truth)
    for i in range(len(found) if len(truth) else 0):
        nearest = int(np.argmin(apart[i]))
        if apart[i, nearest] <= largest:
            partner[i] = nearest
            apart[:, nearest] = np.inf
    return partner
