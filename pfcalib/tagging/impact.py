"""IP2D and IP3D: likelihood ratios of the impact parameters of the tracks of a jet.

Each track counts with the density of its lifetime-signed significances (of d0 alone, or of d0 and
z0) among tracks of b, c and light jets with hits of the same quality; tracks count as independent,
so that the logarithms add up (ATL-PHYS-PUB-2017-013, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ValidationError
from pfcalib.tagging.ftagfiles import TaggedJets
from pfcalib.tagging.tagdata import CLASSES

FloatArray = NDArray[np.float64]

PT_MIN, MAX_D0, MAX_Z0 = 1.0, 1.0, 1.5  # GeV and mm, of tracks that count
CATEGORIES = (
    "no hit in the two innermost layers",
    "no hit in the innermost layer",
    "no hit in the next layer",
    "shared pixels",
    "shared strips",
    "split pixels",
    "good",
)
_HALF = np.array([0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 40])
D0_EDGES = np.concatenate([-_HALF[::-1], [0.0], _HALF, [60.0]])
Z0_EDGES = np.array([-40.0, -6.0, -2.0, -0.7, 0.7, 2.0, 6.0, 40.0])
PRIOR = 1.0  # tracks a bin, of all flavours of the category, that are added to each flavour


class ImpactTable(NamedTuple):
    """Logarithms of the densities."""

    d0_edges: FloatArray
    z0_edges: FloatArray  # two far ones where only d0 counts
    log_density: FloatArray  # (class, category, d0, z0)


def track_category(sample: TaggedJets) -> NDArray[np.int64]:
    """Place in CATEGORIES of each track, shape (n, n_tracks); the first that applies."""
    tracks = sample.tracks
    no_first = tracks["numberOfInnermostPixelLayerHits"] == 0
    no_next = tracks["numberOfNextToInnermostPixelLayerHits"] == 0
    conditions = [
        no_first & no_next,
        no_first,
        no_next,
        tracks["numberOfPixelSharedHits"] > 0,
        tracks["numberOfSCTSharedHits"] > 1,
        tracks["numberOfPixelSplitHits"] > 0,
    ]
    return np.select(conditions, range(len(conditions)), len(conditions))


def counted_tracks(sample: TaggedJets) -> NDArray[np.bool_]:
    """Which tracks count, shape (n, n_tracks)."""
    tracks = sample.tracks
    near = (np.abs(tracks["d0"]) < MAX_D0) & (np.abs(tracks["z0SinTheta"]) < MAX_Z0)
    return np.asarray(sample.valid & near & (tracks["pt"] > PT_MIN))


def fit_impact(
    sample: TaggedJets, *, use_z0: bool = True, weight: FloatArray | None = None
) -> ImpactTable:
    """Densities from jets whose flavour is known.

    Parameters
    ----------
    sample : TaggedJets
    use_z0 : bool
        True for IP3D, False for IP2D.
    weight : ndarray, shape (n,), optional
        Of each jet.

    Raises
    ------
    ValidationError
        If a flavour has no tracks.
    """
    z0_edges = Z0_EDGES if use_z0 else np.array([-np.inf, np.inf])
    shape = (len(CATEGORIES), len(D0_EDGES) - 1, len(z0_edges) - 1)
    place, counted = _places(sample, D0_EDGES, z0_edges), counted_tracks(sample)
    weights = np.broadcast_to(
        (np.ones(len(sample)) if weight is None else weight)[:, None], counted.shape
    )
    counts = []
    for label in CLASSES:
        chosen = counted & (sample.label == label)[:, None]
        found = np.bincount(place[chosen], weights[chosen], minlength=int(np.prod(shape)))
        if not found.sum() > 0.0:
            raise ValidationError(f"impact parameters: no track in jets of label {label}")
        counts.append(found.reshape(shape))
    table = np.stack(counts)
    # where tracks are few a flavour is like all others, so that they say nothing
    every = table.sum(axis=0) + 1e-2
    every /= every.sum(axis=(1, 2), keepdims=True)
    table = table + PRIOR * every[0].size * every
    # densities of a category, times how often it is in jets of the flavour
    table /= table.sum(axis=(1, 2, 3), keepdims=True)
    return ImpactTable(D0_EDGES, z0_edges, np.log(table))


def impact_scores(sample: TaggedJets, table: ImpactTable) -> FloatArray:
    """Logarithm of the likelihood of the tracks of each jet to be those of each of CLASSES, shape
    (n, 3); 0 without tracks.
    """
    place, counted = _places(sample, table.d0_edges, table.z0_edges), counted_tracks(sample)
    terms = table.log_density.reshape(len(CLASSES), -1)[:, place]
    return np.asarray(np.sum(terms, axis=2, where=counted).T)


def impact_columns(
    sample: TaggedJets, table: ImpactTable, name: str = "IP3D"
) -> dict[str, FloatArray]:
    """Likelihood ratios of b to light, b to c and c to light, as DL1 takes them, each (n,)."""
    b, c, light = impact_scores(sample, table).T
    return {f"{name}_bu": b - light, f"{name}_bc": b - c, f"{name}_cu": c - light}


def _places(sample: TaggedJets, d0_edges: FloatArray, z0_edges: FloatArray) -> NDArray[np.int64]:
    """Flat place of each track among category and bins, (n, n_tracks)."""
    tracks = sample.tracks
    bins = []
    for name, edges in (
        ("lifetimeSignedD0Significance", d0_edges),
        ("lifetimeSignedZ0SinThetaSignificance", z0_edges),
    ):
        found = np.searchsorted(edges, tracks[name], side="right") - 1
        bins.append(np.clip(found, 0, len(edges) - 2))
    return (track_category(sample) * (len(d0_edges) - 1) + bins[0]) * (len(z0_edges) - 1) + bins[1]
