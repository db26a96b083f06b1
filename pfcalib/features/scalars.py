"""Table of cluster moments for trees and dense networks: measured quantities only, on scales on
which they are evenly spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.samples.schema import Sample

Scalars = Mapping[str, NDArray[Any]]
_FLOOR = 1e-12  # what is zero or less counts as this under a logarithm


def log10_floor(values: ArrayLike) -> NDArray[np.float64]:
    """log10 of what is positive, -12 for the rest.

    >>> log10_floor([100.0, 0.0, -3.0]).tolist()
    [2.0, -12.0, -12.0]
    """
    return np.log10(np.maximum(np.asarray(values, dtype=np.float64), _FLOOR))


def signed_log10(values: ArrayLike) -> NDArray[np.float64]:
    """sign(x) log10(1 + |x|): logarithmic far from zero, linear near it, for quantities of either
    sign.

    >>> signed_log10([-9.0, 0.0, 99.0]).tolist()
    [-1.0, 0.0, 2.0]
    """
    x = np.asarray(values, dtype=np.float64)
    return np.sign(x) * np.log10(1.0 + np.abs(x))


def _plain(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


# feature, column, scale
_SCALES: tuple[tuple[str, str, Callable[[ArrayLike], NDArray[np.float64]]], ...] = (
    ("log10_clusterE", "clusterE", log10_floor),
    ("clusterEta", "clusterEta", _plain),
    ("log10_nCells", "cluster_nCells", log10_floor),
    # below a millimetre it says nothing
    ("log10_CENTER_LAMBDA", "cluster_CENTER_LAMBDA", lambda x: log10_floor(np.maximum(x, 1.0))),
    ("log10_CENTER_MAG", "cluster_CENTER_MAG", log10_floor),
    ("log10_FIRST_ENG_DENS", "cluster_FIRST_ENG_DENS", log10_floor),
    ("log10_MAX_DENS", "cluster_MAX_DENS", log10_floor),
    ("log10_SECOND_R", "cluster_SECOND_R", lambda x: log10_floor(np.maximum(x, 1.0))),
    ("log10_SECOND_LAMBDA", "cluster_SECOND_LAMBDA", lambda x: log10_floor(np.maximum(x, 1.0))),
    ("ISOLATION", "cluster_ISOLATION", _plain),
    ("LATERAL", "cluster_LATERAL", _plain),
    ("LONGITUDINAL", "cluster_LONGITUDINAL", _plain),
    ("DELTA_ALPHA", "cluster_DELTA_ALPHA", _plain),
    ("signed_log10_SIGNIFICANCE", "cluster_SIGNIFICANCE", signed_log10),
    ("signed_log10_CELL_SIGNIFICANCE", "cluster_CELL_SIGNIFICANCE", signed_log10),
    ("PTD", "cluster_PTD", _plain),
    ("ENG_FRAC_EM", "cluster_ENG_FRAC_EM", _plain),
    ("ENG_FRAC_MAX", "cluster_ENG_FRAC_MAX", _plain),
    ("ENG_FRAC_CORE", "cluster_ENG_FRAC_CORE", _plain),
    ("log10_ENG_POS", "cluster_ENG_POS", log10_floor),
    *((f"WIDTH_ETA_{name}", f"cluster_WIDTH_ETA_{name}", _plain) for name in LAYER_NAMES),
)
MOMENT_FEATURES = (
    *(feature for feature, _, _ in _SCALES),
    *(f"FRAC_{name}" for name in LAYER_NAMES),
)
N_SHARES = len(LAYER_NAMES)  # last columns, which become shares of clusterE, the first one
MOMENT_COLUMNS = (
    *(column for _, column, _ in _SCALES),
    *(f"cluster_E_{name}" for name in LAYER_NAMES),
)


def moment_table(clusters: Sample | Scalars) -> NDArray[np.float32]:
    """Moments of each cluster; nothing in it is known from simulation truth.

    Parameters
    ----------
    clusters : Sample or mapping of str to array
        With the columns `MOMENT_COLUMNS`.

    Returns
    -------
    array of float32, shape (n_clusters, len(MOMENT_FEATURES))
        Columns in the order of `MOMENT_FEATURES`; FRAC_<layer> is the energy of the layer over
        clusterE, between -1 and 2.

    Raises
    ------
    ValidationError
        If a column is missing or a feature is not finite.
    """
    scalars = clusters.scalars if isinstance(clusters, Sample) else clusters
    missing = [name for name in MOMENT_COLUMNS if name not in scalars]
    if missing:
        raise ValidationError(f"moments need columns that were not read: {', '.join(missing)}")
    features = [scale(scalars[column]) for _, column, scale in _SCALES]
    energy = _plain(scalars["clusterE"])
    safe = np.where(np.abs(energy) < _FLOOR, _FLOOR, energy)
    features += [
        np.clip(_plain(scalars[f"cluster_E_{name}"]) / safe, -1.0, 2.0) for name in LAYER_NAMES
    ]
    table = np.column_stack(features).astype(np.float32)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, feature = bad[0]
        raise ValidationError(
            f"{MOMENT_FEATURES[feature]} of cluster {row} is {table[row, feature]}, it must be "
            "finite"
        )
    return table
