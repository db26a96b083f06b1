"""What finds photons by rule: windows that slide over the map of the barrel, and topological
clusters of its electromagnetic cells; and the energy in a box.

Windows after ATL-LARG-PUB-2008-002, section 3: towers of the size of a cell of EMB2, a window of
fixed size at each, of which local maxima above a threshold stay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.geometry import BARREL
from pfcalib.photons.boxes import suppress
from pfcalib.photons.pairs import EMB2, window_cells
from pfcalib.photons.photonmaps import EM_CELLS, ETA_CELL, N_ETA, N_PHI, PARTS
from pfcalib.photons.showershapes import SHAPES_NAMES, layer_energies, shower_shapes
from pfcalib.simulation.digitise import NoiseConfig, noise_sigma

F64 = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Seeds(NamedTuple):
    """Candidates of one event."""

    centre: F64  # (n, 2) cells of EMB2 in eta and phi
    energy: F64  # (n,) GeV


def towers(cells: NDArray[np.floating]) -> F64:
    """Energy of EMB1-3 in each cell of EMB2, shape (N_ETA, N_PHI), of the cells of an event."""
    strips, middle, back = (np.asarray(cells[part], np.float64) for part in PARTS)
    front = strips.reshape(N_ETA, 8, -1).sum(axis=1)
    front = np.repeat(front, N_PHI // front.shape[1], axis=1) * front.shape[1] / N_PHI
    deep = back.reshape(-1, N_PHI)
    deep = np.repeat(deep, N_ETA // len(deep), axis=0) * len(deep) / N_ETA
    return np.asarray(front + middle.reshape(N_ETA, N_PHI) + deep)


@njit(cache=True)
def box_energy(energy: F64, box: F64) -> F64:
    """Energy in boxes, of cells at a border by the part that is inside; shape (n,), GeV.

    Parameters
    ----------
    energy : ndarray, shape (N_ETA, N_PHI), GeV
        See `towers`.
    box : ndarray, shape (n, 4)
    """
    total = np.zeros(len(box))
    for k in range(len(box)):
        for i in range(max(int(np.floor(box[k, 0])), 0), min(int(np.ceil(box[k, 2])), N_ETA)):
            of_eta = min(box[k, 2], i + 1.0) - max(box[k, 0], float(i))
            for j in range(int(np.floor(box[k, 1])), int(np.ceil(box[k, 3]))):
                of_phi = min(box[k, 3], j + 1.0) - max(box[k, 1], float(j))
                total[k] += of_eta * of_phi * energy[i, j % N_PHI]
    return total


def boxes_about(centre: F64, size: tuple[int, int]) -> F64:
    """Boxes of whole cells about the cells that hold places, shape (n, 4)."""
    low = np.floor(centre) - np.array([size[0] // 2, size[1] // 2])
    return np.column_stack([low, low + np.array(size)])


def slide_window(
    cells: NDArray[np.floating], *, size: tuple[int, int], least: float, core: int = 3
) -> Seeds:
    """Windows whose transverse energy is a local maximum.

    Parameters
    ----------
    cells : ndarray, shape (n_em,), GeV
        Of one event, see `photonmaps.Maps`.
    size : (int, int)
        Cells in eta and phi.
    least : float, GeV
        Of the transverse energy in the window.
    core : int
        Cells on a side about the middle that must hold no larger window.

    Returns
    -------
    Seeds
        With the mean place of 3 x 3 cells and the energy of 3 x 7; of two less than a cell apart
        the one with more energy.
    """
    energy = towers(cells)
    of_ring = np.pad(energy, ((0, 0), (16, 16)), mode="wrap")
    window = ndimage.uniform_filter(of_ring, size, mode="constant") * size[0] * size[1]
    highest = ndimage.maximum_filter(window, core, mode="constant")
    transverse = window / np.cosh((np.arange(N_ETA) + 0.5 - N_ETA / 2) * ETA_CELL)[:, None]
    peak = ((window == highest) & (transverse > least))[:, 16:-16]
    centre = np.column_stack(np.nonzero(peak)).astype(np.float64) + 0.5
    # a window as large as a shower has several maxima about it, all of which lead to its core
    for _ in range(3):
        centre = barycentre(cells, centre, half=1)
    found = box_energy(energy, boxes_about(centre, (3, 7)))
    kept = suppress(np.column_stack([centre - 1.0, centre + 1.0]), found, 0.4)
    return Seeds(centre[kept], found[kept])


def barycentre(cells: NDArray[np.floating], centre: F64, *, half: int) -> F64:
    """Mean place of the energy of EMB2 within so many cells of those that hold places, (n, 2)."""
    middle = np.maximum(np.asarray(cells[PARTS[1]], np.float64).reshape(N_ETA, N_PHI), 0.0)
    middle = np.pad(middle, ((half, half), (0, 0)))
    step, moved = np.arange(-half, half + 1), np.empty_like(centre)
    for k, (eta, phi) in enumerate(np.floor(centre).astype(np.int64)):
        near = middle[eta + half + step[:, None], (phi + step) % N_PHI]
        total = max(near.sum(), 1e-3)
        moved[k] = (
            eta + 0.5 + step @ near.sum(axis=1) / total,
            phi + 0.5 + near.sum(0) @ step / total,
        )
    moved[:, 1] %= N_PHI
    return moved


def cluster_seeds(
    cells: NDArray[np.floating], *, mu: float, least: float, config: TopoConfig | None = None
) -> Seeds:
    """Topological clusters of EMB1-3 with a transverse energy above `least`, GeV; place by energy
    in EMB2, energy of the whole cluster.
    """
    energy = np.zeros(BARREL.n_cells)
    energy[EM_CELLS] = cells
    sigma = noise_sigma(BARREL, NoiseConfig(mu=mu))
    clusters = find_clusters(energy[None], sigma, BARREL, config)
    part = clusters.weight * energy[clusters.cell]
    owner = np.repeat(np.arange(len(clusters.event)), np.diff(clusters.offsets))
    n, layer = len(clusters.event), BARREL.layer[clusters.cell]
    total = np.bincount(owner, part, n).astype(np.float64)
    positive = np.where((part > 0.0) & (layer == EMB2), part, 0.0)
    weight = np.bincount(owner, positive, n)
    local = clusters.cell - BARREL.offset[EMB2]
    eta, phi = local // N_PHI, local % N_PHI
    hot = np.zeros(n, np.int64)
    order = np.argsort(positive, kind="stable")
    hot[owner[order]] = phi[order]  # the hottest cell comes last
    apart = (phi - hot[owner] + N_PHI // 2) % N_PHI - N_PHI // 2
    safe = np.maximum(weight, 1e-9)
    centre = np.column_stack([
        np.bincount(owner, positive * eta, n) / safe + 0.5,
        (hot + np.bincount(owner, positive * apart, n) / safe + 0.5) % N_PHI,
    ])  # fmt: skip
    transverse = total / np.cosh((centre[:, 0] - N_ETA / 2) * ETA_CELL)
    kept = (transverse > least) & (weight > 0.0)
    return Seeds(centre[kept], total[kept])


def seed_features(cells: NDArray[np.floating], dead: NDArray[np.bool_], seeds: Seeds) -> F64:
    """What trees tell photons by, one row a candidate: the shower shapes of `showershapes`, which
    are cut at the edge and at dead cells as the images are; logarithms of the energies of EMB1-3
    and of the candidate, abs(eta), and the dead or missing cells of EMB2 in 3 x 3 and in 3 x 7.
    """
    if not len(seeds.energy):
        return np.zeros((0, len(SHAPES_NAMES) + 7))
    full = np.zeros(BARREL.n_cells + 1)  # the last one is what lies outside
    full[EM_CELLS] = cells
    place = np.floor(seeds.centre).astype(np.int64)
    at = np.clip(place[:, 0], 0, N_ETA - 1), place[:, 1] % N_PHI
    windows = window_cells(BARREL, BARREL.offset[EMB2] + at[0] * N_PHI + at[1])
    pixels = full[windows].astype(np.float32)
    gone = np.pad(np.pad(dead, ((1, 1), (0, 0)), constant_values=True), ((0, 0), (3, 3)), "wrap")
    lost = [
        np.array([gone[i : i + 3, j + 3 - n : j + 4 + n].sum() for i, j in zip(*at, strict=True)])
        for n in (1, 3)
    ]
    logs = np.log(np.maximum(np.column_stack([layer_energies(pixels)[:, 1:], seeds.energy]), 0.05))
    eta = np.abs(seeds.centre[:, 0] - N_ETA / 2) * ETA_CELL
    return np.column_stack([shower_shapes(pixels), logs, eta, *lost])
