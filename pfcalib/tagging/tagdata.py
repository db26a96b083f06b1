"""Jets with tracks as networks want them: tracks one after the other without padding, the flavour,
where each track comes from, and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError, ValidationError

# the variables of GN2, by their public names; lengths in mm, momenta in GeV, angles in rad
TRACK_COLUMNS = (
    "d0", "z0SinTheta", "dphi", "deta", "qOverP", "lifetimeSignedD0Significance",
    "lifetimeSignedZ0SinThetaSignificance", "phiUncertainty", "thetaUncertainty",
    "qOverPUncertainty", "numberOfPixelHits", "numberOfSCTHits", "numberOfInnermostPixelLayerHits",
    "numberOfNextToInnermostPixelLayerHits", "numberOfInnermostPixelLayerSharedHits",
    "numberOfInnermostPixelLayerSplitHits", "numberOfPixelSharedHits", "numberOfPixelSplitHits",
    "numberOfSCTSharedHits",
)  # fmt: skip
# about what RNNIP saw of a track: its two significances, momentum, place in the jet, innermost hits
RNNIP_COLUMNS = (
    "lifetimeSignedD0Significance", "lifetimeSignedZ0SinThetaSignificance", "qOverP", "deta",
    "dphi", "numberOfInnermostPixelLayerHits", "numberOfNextToInnermostPixelLayerHits",
    "numberOfInnermostPixelLayerSharedHits",
)  # fmt: skip
JET_COLUMNS = ("pt", "eta")
COLUMN = {name: i for i, name in enumerate(TRACK_COLUMNS)}
FLAVOURS = {5: "b", 4: "c", 0: "light"}  # of HadronConeExclTruthLabelID, in the order of classes
CLASSES = tuple(FLAVOURS.values())
ORIGINS = (
    "pile-up", "fake", "primary", "b hadron", "c hadron from b", "c hadron", "tau", "other secondary",
)  # fmt: skip


class HasJets(Protocol):
    """Structured arrays of jets (n,) and tracks (n, n_tracks)."""

    @property
    def jets(self) -> NDArray[Any]: ...
    @property
    def tracks(self) -> NDArray[Any]: ...


class TagData(NamedTuple):
    """Jets; tracks of jet i are those from offsets[i] to offsets[i + 1]."""

    tracks: NDArray[np.float32]  # (n_tracks, len(TRACK_COLUMNS))
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

    def take(self, rows: ArrayLike) -> TagData:
        """Some jets, by place or mask."""
        chosen = np.arange(len(self.label))[np.asarray(rows)]
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
    found: HasJets, *, weight: ArrayLike | None = None, true_pt: str | None = None
) -> TagData:
    """Jets of the three flavours, without taus, in their order.

    Parameters
    ----------
    found : TaggedJets
        Or what has its arrays: pt in GeV, `valid` of tracks; `ftagTruthOriginLabel` and
        `ftagTruthVertexIndex` may be missing.
    weight : array_like, shape (n,), optional
        One of each jet; 1 by default.
    true_pt : str, optional
        Field of the true transverse momentum, GeV; without it there is no energy to learn.

    Raises
    ------
    ValidationError
        If a number of a track or jet is not finite.
    """
    flavour = np.asarray(found.jets["HadronConeExclTruthLabelID"])
    kept = np.flatnonzero(np.isin(flavour, list(FLAVOURS)))
    jets, tracks = found.jets[kept], found.tracks[kept]
    valid = tracks["valid"].astype(bool)
    table = np.stack([tracks[name][valid] for name in TRACK_COLUMNS], axis=-1, dtype=np.float32)
    of_jets = np.stack([jets[name] for name in JET_COLUMNS], axis=-1, dtype=np.float32)
    for name, array in (("tracks", table), ("jets", of_jets)):
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0, 1]
            column = (TRACK_COLUMNS if name == "tracks" else JET_COLUMNS)[place]
            raise ValidationError(f"{name}: {column} is not finite everywhere")
    n_all, n = len(table), len(jets)
    known = tracks.dtype.names or ()
    origin = tracks["ftagTruthOriginLabel"][valid] if "ftagTruthOriginLabel" in known else -1
    vertex = tracks["ftagTruthVertexIndex"][valid] if "ftagTruthVertexIndex" in known else -1
    ratio = np.log(np.maximum(jets[true_pt] / jets["pt"], 0.1)) if true_pt else 0.0
    place = {number: i for i, number in enumerate(FLAVOURS)}
    return TagData(
        table,
        np.concatenate([[0], np.cumsum(valid.sum(axis=1))]),
        of_jets,
        np.array([place[int(number)] for number in flavour[kept]], dtype=np.int64),
        np.ones(n, dtype=np.float32) if weight is None else np.float32(weight)[kept],
        np.zeros(n, dtype=np.float32) + np.float32(ratio),
        np.zeros(n_all, dtype=np.int8) + np.asarray(origin).astype(np.int8),
        np.zeros(n_all, dtype=np.int16) + np.asarray(vertex).astype(np.int16),
    )


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
    kind, cell, shape = np.asarray(label), np.zeros(np.size(label), dtype=np.int64), []
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
    return np.float32(weight * (len(kind) / n_classes / each)[kind])
