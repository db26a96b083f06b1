"""Jets with tracks as networks want them: tracks one after the other without padding, the flavour,
where each track comes from, and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.tagging.ftagfiles import B_JET, C_JET, LIGHT_JET, TRACK_INPUTS, TaggedJets

# about what RNNIP saw of a track: its two significances, momentum, place in the jet, innermost hits
RNNIP_COLUMNS = (
    "lifetimeSignedD0Significance", "lifetimeSignedZ0SinThetaSignificance", "qOverP", "deta",
    "dphi", "numberOfInnermostPixelLayerHits", "numberOfNextToInnermostPixelLayerHits",
    "numberOfInnermostPixelLayerSharedHits",
)  # fmt: skip
JET_COLUMNS = ("pt", "eta")
COLUMN = {name: i for i, name in enumerate(TRACK_INPUTS)}
CLASSES = {B_JET: "b", C_JET: "c", LIGHT_JET: "light"}  # by label, in the order of the networks
TRUE_PT = "ptFromTruthDressedWZJet"
# bins of the weights: GeV, and abs(eta)
PT_BINS, ETA_BINS = np.geomspace(20.0, 2500.0, 13), np.linspace(0.0, 2.5, 6)


class TagData(NamedTuple):
    """Jets; tracks of jet i are those from offsets[i] to offsets[i + 1]."""

    tracks: NDArray[np.float32]  # (n_tracks, len(TRACK_INPUTS))
    offsets: NDArray[np.int64]  # (n + 1,)
    jets: NDArray[np.float32]  # (n, len(JET_COLUMNS))
    label: NDArray[np.int64]  # (n,) place in CLASSES
    weight: NDArray[np.float32]  # (n,)
    log_ratio: NDArray[np.float32]  # (n,) ln of true over measured pT
    origin: NDArray[np.int8]  # (n_tracks,) place in ORIGINS; -1: not known
    vertex: NDArray[np.int16]  # (n_tracks,) same number, same true vertex; below 0: none

    @property
    def n_tracks(self) -> NDArray[np.int64]:
        """Of each jet, (n,)."""
        return np.diff(self.offsets)

    @property
    def jet_of(self) -> NDArray[np.int64]:
        """Place of the jet of each track, (n_tracks,)."""
        return np.repeat(np.arange(len(self.label)), self.n_tracks)

    def take(self, rows: slice | ArrayLike) -> TagData:
        """Some jets, by place, slice or mask."""
        which = rows if isinstance(rows, slice) else np.asarray(rows)
        chosen = np.arange(len(self.label))[which]
        n = self.n_tracks[chosen]
        offsets = np.concatenate([[0], np.cumsum(n)])
        of = np.repeat(self.offsets[chosen] - offsets[:-1], n) + np.arange(offsets[-1])
        return self.with_tracks(of, offsets)._replace(
            jets=self.jets[chosen], label=self.label[chosen], weight=self.weight[chosen],
            log_ratio=self.log_ratio[chosen],
        )  # fmt: skip

    def with_tracks(self, of: NDArray[Any], offsets: NDArray[np.int64]) -> TagData:
        """The same jets with these of the tracks."""
        return self._replace(
            tracks=self.tracks[of], origin=self.origin[of], vertex=self.vertex[of], offsets=offsets
        )

    def keep_tracks(self, kept: NDArray[np.bool_]) -> TagData:
        """The same jets without some tracks."""
        n = np.bincount(self.jet_of[kept], minlength=len(self.label))
        return self.with_tracks(np.flatnonzero(kept), np.concatenate([[0], np.cumsum(n)]))

    def order_tracks(self, key: NDArray[Any]) -> TagData:
        """The same jets, tracks of each by rising key."""
        return self.with_tracks(np.lexsort((key, self.jet_of)), self.offsets)


def tag_data(
    sample: TaggedJets, *, weight: ArrayLike | None = None, true_pt: str | None = TRUE_PT
) -> TagData:
    """Jets of the classes, so without taus, in their order.

    Parameters
    ----------
    sample : TaggedJets
        Origins and vertices of its tracks may be missing.
    weight : array_like, shape (n,), optional
        One of each jet; 1 by default.
    true_pt : str, optional
        Field of the true transverse momentum, GeV; a jet without it has that measured.
    """
    kept = np.flatnonzero(np.isin(sample.label, list(CLASSES)))
    jets, tracks = sample.jets[kept], sample.tracks[kept]
    valid, names = tracks["valid"], tracks.dtype.names or ()
    n_all = np.count_nonzero(valid)
    ratio = jets[true_pt] / jets["pt"] if true_pt else np.ones(len(jets))
    ratio = np.where(ratio > 0.0, np.clip(ratio, 0.3, 3.0), 1.0)  # NaN too

    def told(name: str) -> NDArray[Any]:
        return tracks[name][valid] if name in names else np.full(n_all, -1)

    return TagData(
        tracks=np.stack([np.float32(tracks[name][valid]) for name in TRACK_INPUTS], axis=-1),
        offsets=np.concatenate([[0], np.cumsum(valid.sum(axis=1))]),
        jets=np.stack([jets[name] for name in JET_COLUMNS], axis=-1).astype(np.float32),
        label=np.array([list(CLASSES).index(i) for i in sample.label[kept]], dtype=np.int64),
        weight=np.ones(len(jets), np.float32)
        if weight is None
        else np.asarray(weight, dtype=np.float32)[kept],
        log_ratio=np.log(ratio).astype(np.float32),
        origin=told("ftagTruthOriginLabel").astype(np.int8),
        vertex=told("ftagTruthVertexIndex").astype(np.int16),
    )


def weigh_splits(data: TagData, split: NDArray[np.int8]) -> TagData:
    """The jets with weights with which, in each split, all classes are equally common and alike in
    momentum and pseudorapidity, as published taggers are trained.
    """
    weight = np.zeros(len(data.label), dtype=np.float32)
    for rows in (split == k for k in np.unique(split)):
        pt, eta = data.jets[rows].T
        weight[rows] = equal_weights(data.label[rows], pt, np.abs(eta), edges=(PT_BINS, ETA_BINS))
    return data._replace(weight=weight)


def equal_weights(
    label: ArrayLike, *quantities: ArrayLike, edges: Sequence[ArrayLike], flat: bool = False,
    largest: float = 20.0,
) -> NDArray[np.float32]:  # fmt: skip
    """Weights with which all classes are equally common and alike in some quantities, of mean 1.

    Parameters
    ----------
    label : array_like of int, shape (n,)
    *quantities : array_like, shape (n,)
        Such as the transverse momentum and pseudorapidity of the jets.
    edges : sequence of array_like
        Of the bins in each; what is outside counts to the nearest bin.
    flat : bool
        Each class flat in the bins; else as the mean of the classes.
    largest : float
        Weight, in units of the mean.

    Raises
    ------
    ConfigError
        If there are not as many edges as quantities.
    """
    if len(edges) != len(quantities):
        raise ConfigError(f"{len(quantities)} quantities, {len(edges)} sets of edges")
    kind, cell = np.asarray(label), np.zeros(np.size(label), dtype=np.int64)
    shape: list[int] = []
    for values, of in zip(quantities, map(np.asarray, edges), strict=True):
        place = np.clip(np.digitize(np.asarray(values), of) - 1, 0, len(of) - 2)
        cell, shape = cell * (len(of) - 1) + place, [*shape, len(of) - 1]
    n_classes = int(kind.max()) + 1
    count = np.zeros((n_classes, int(np.prod(shape))))
    np.add.at(count, (kind, cell), 1.0)
    share = count / count.sum(axis=1, keepdims=True)
    wanted = np.full(count.shape[1], 1.0 / count.shape[1]) if flat else share.mean(axis=0)
    weight = (wanted / np.maximum(count, 1.0))[kind, cell]
    weight = np.minimum(weight / weight.mean(), largest)
    each = np.bincount(kind, weight, n_classes)
    return (weight * (len(kind) / n_classes / each)[kind]).astype(np.float32)
