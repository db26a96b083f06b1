"""Shapes of electromagnetic showers by which the field tells photons from jets, of windows of
pixels.

Definitions after ATLAS, Eur. Phys. J. C 76 (2016) 666, table 1, in the cells of this barrel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pfcalib.photons.pairs import F32, Pairs, image
from pfcalib.samples.select import balance_mask

F64 = NDArray[np.float64]

# in the order of the columns of `shower_shapes`
SHAPES_NAMES = (
    "R_eta", "R_phi", "w_eta2", "w_s1", "w_s3", "F_side", "dE", "E_ratio", "f1", "f3", "R_had",
)  # fmt: skip
# which side of a cut a photon lies on: 1 above, -1 below
SIDES = {"R_eta": 1, "R_phi": 1, "E_ratio": 1, "f1": 1}
_TINY = 1e-3  # GeV, what a ratio is not divided by less than


def layer_energies(pixels: F32) -> F64:
    """Energy at the EM scale of presampler and EMB1-3 in the core of the window, GeV, shape (n, 4):
    what lies behind 3 x 7 cells of EMB2.
    """
    presampler, strips, middle, back = (
        image(pixels, name) for name in ("PreSamplerB", "EMB1", "EMB2", "EMB3")
    )
    parts = (presampler[:, 2:5], strips[:, 16:40], middle[:, 2:5, 2:9], back[:, 1:3, 2:9])
    return np.stack([part.sum(axis=(1, 2), dtype=np.float64) for part in parts], axis=1)


def cluster_energy(pixels: F32) -> F64:
    """Their sum, GeV, shape (n,)."""
    return np.asarray(layer_energies(pixels).sum(axis=1))


def shower_shapes(pixels: F32) -> F64:
    """Shapes, one column each of `SHAPES_NAMES`, shape (n, 11).

    Parameters
    ----------
    pixels : ndarray, shape (n, N_PIXELS), GeV
        See `pairs.Pairs`.

    Returns
    -------
    ndarray
        R_eta, R_phi: energy in 3 x 7 over 7 x 7 and in 3 x 3 over 3 x 7 cells of EMB2. w_eta2:
        width in eta of 3 x 5 cells. w_s1, w_s3: widths in strips about the hottest one, of 20 and
        of 3. F_side: energy outside of the three hottest strips within seven, over that inside. dE:
        second maximum in the strips less the minimum before it, GeV. E_ratio: difference of the two
        maxima over their sum. f1, f3: shares of EMB1 and EMB3. R_had: energy in the tiles behind,
        3 x 3 cells, over that of the cluster.
    """
    middle, energies = image(pixels, "EMB2").astype(np.float64), layer_energies(pixels)
    total = np.maximum(energies.sum(axis=1), _TINY)

    def block(n_eta: int, n_phi: int) -> F64:
        inner = middle[:, 3 - n_eta // 2 : 4 + n_eta // 2, 5 - n_phi // 2 : 6 + n_phi // 2]
        return np.asarray(inner.sum(axis=(1, 2)))

    weights = np.maximum(middle[:, 2:5, 3:8].sum(axis=2), 0.0)
    eta = 0.025 * np.arange(-1, 2)
    norm = np.maximum(weights.sum(axis=1), _TINY)
    width = np.sqrt(np.maximum(weights @ eta**2 / norm - (weights @ eta / norm) ** 2, 0.0))
    hadronic = sum(image(pixels, name).sum(axis=(1, 2)) for name in ("TileBar0", "TileBar1"))
    columns = (
        block(3, 7) / np.maximum(block(7, 7), _TINY),
        block(3, 3) / np.maximum(block(3, 7), _TINY),
        width,
        *_strips(pixels),
        energies[:, 1] / total,
        energies[:, 3] / total,
        hadronic / total,
    )
    return np.stack(columns, axis=1)


def _strips(pixels: F32) -> tuple[F64, F64, F64, F64, F64]:
    """w_s1, w_s3, F_side, dE and E_ratio of the strips, summed over phi."""
    strips = image(pixels, "EMB1").sum(axis=2, dtype=np.float64)
    n, rows = strips.shape[1], np.arange(len(strips))
    place = np.arange(n)
    # a shower's core lies in the middle of the window, a neighbour's at its edge
    hot = 12 + np.argmax(strips[:, 12 : n - 12], axis=1)
    away = place - hot[:, None]

    def inside(half: int) -> F64:
        return np.asarray(np.where(np.abs(away) <= half, strips, 0.0))

    def spread(half: int) -> F64:
        weight = np.maximum(inside(half), 0.0)
        return np.asarray(
            np.sqrt((weight * away**2).sum(axis=1) / np.maximum(weight.sum(axis=1), _TINY))
        )

    three, seven = inside(1).sum(axis=1), inside(3).sum(axis=1)
    side = (seven - three) / np.maximum(three, _TINY)
    first = strips[rows, hot]
    # second maximum: a strip above both neighbours, within ten of the first and not beside it
    peak = np.zeros(strips.shape, np.bool_)
    peak[:, 1:-1] = (strips[:, 1:-1] > strips[:, :-2]) & (strips[:, 1:-1] >= strips[:, 2:])
    peak &= (np.abs(away) > 1) & (np.abs(away) <= 10)
    height = np.where(peak, strips, -np.inf)
    second_at = np.argmax(height, axis=1)
    second = np.where(peak.any(axis=1), strips[rows, second_at], 0.0)
    low, high = np.minimum(hot, second_at)[:, None], np.maximum(hot, second_at)[:, None]
    valley = np.where((place > low) & (place < high), strips, np.inf).min(axis=1)
    rise = np.where(peak.any(axis=1) & np.isfinite(valley), second - valley, 0.0)
    ratio = (first - second) / np.maximum(first + np.maximum(second, 0.0), _TINY)
    return spread(10), spread(1), side, rise, np.clip(ratio, -1.0, 2.0)


def select_loose(
    pairs: Pairs,
    cuts: Mapping[str, tuple[float, float]],
    *,
    et: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Candidates that pass cuts on shapes without pile-up, of which as many photons as fakes are
    kept in each of ten bins of ET.

    Parameters
    ----------
    pairs : Pairs
    cuts : mapping
        By name of a shape the range, open, that is kept.
    et : (float, float), GeV
        Range of the transverse energy of the cluster without pile-up.
    rng : numpy.random.Generator

    Returns
    -------
    rows, passed : ndarray
        Places of those that are kept, and which of all passed the cuts, (n,) bool.
    """
    shapes = shower_shapes(pairs.clean)
    transverse = cluster_energy(pairs.clean) / np.cosh(pairs.eta)
    passed = (transverse > et[0]) & (transverse < et[1])
    for name, (low, high) in cuts.items():
        values = shapes[:, SHAPES_NAMES.index(name)]
        passed &= (values > low) & (values < high)
    rows = np.flatnonzero(passed)
    edges = np.geomspace(*et, 11)
    kept = balance_mask(transverse[rows], pairs.is_photon[rows], rng=rng, edges=edges)
    return rows[kept], passed
