"""Training of networks on tracks, what they say of jets, tracks and vertices, and their export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pfcalib.deploy.export import predict_all
from pfcalib.deploy.validator import open_session
from pfcalib.tagging.ftagfiles import MAX_TRACKS, ORIGINS, TRACK_INPUTS
from pfcalib.tagging.tagdata import CLASSES, JET_COLUMNS, TagData
from pfcalib.tagging.tagnets import (
    JETS,
    ORIGIN,
    OUTPUT,
    PAIRS,
    RATIO,
    SHARES,
    TRACKS,
    TaggerConfig,
    adapt_scales,
    build_tagger,
)
from pfcalib.training.fit import ArrayBatches, Arrays, Say, TrainConfig, TrainResult
from pfcalib.training.kept import fit_kept

N_REFERENCE = 300  # jets that check an export
N_SORTED = 30  # batches whose jets are sorted by their number of tracks together
ROUND = 4  # tracks that the length of a batch is a multiple of
OF_TRACKS = (ORIGIN, SHARES)  # layers with an answer for each track
FEW = (0, 1, 15, 40)  # tracks with which an export is checked

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TaggerTraining:
    """A network and its training.

    Parameters
    ----------
    network : TaggerConfig
    train : TrainConfig
        The loss is that of the network, whatever this says; the seed is that of the first weights
        too.
    """

    network: TaggerConfig = field(default_factory=TaggerConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=256, epochs=20, patience=20, loss="mse",
            schedule="cosine_steps", weight_decay=1e-5,
        )
    )  # fmt: skip


class Tagger(NamedTuple):
    """A trained network."""

    config: TaggerTraining
    model: Any  # keras.Model with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file


class TrackBatches(ArrayBatches):
    """Batches of jets of about the same number of tracks, padded to the longest of them.

    Parameters
    ----------
    data : TagData
    batch_size, seed : int
    shuffle : bool
        In a new order each epoch; else by number of tracks.
    tasks : bool
        Whether there are answers for tracks and their pairs.
    """

    def __init__(
        self, data: TagData, *, batch_size: int, seed: int = 1, shuffle: bool = False,
        tasks: bool = False,
    ) -> None:  # fmt: skip
        self.data, self.tasks = data, tasks
        longest = np.clip(data.n_tracks, 1, MAX_TRACKS)
        self.lengths = -(-longest // ROUND) * ROUND
        super().__init__(({}, data.label), batch_size=batch_size, seed=seed, shuffle=shuffle)

    def set_epoch(self, epoch: int) -> None:
        """Order of the jets in that epoch, counted from 0."""
        super().set_epoch(epoch)
        rng, size = np.random.default_rng((self.seed, epoch, 1)), self.batch_size
        block = size * N_SORTED if self.shuffle else max(self.n_clusters, 1)
        parts = [self.order[i : i + block] for i in range(0, self.n_clusters, block)]
        self.batches = []
        for part in parts:
            of = part[np.argsort(self.lengths[part], kind="stable")]
            self.batches += [of[i : i + size] for i in range(0, len(of), size)]
        if self.shuffle:
            self.batches = [self.batches[i] for i in rng.permutation(len(self.batches))]
        # Keras takes an axis for fixed that is equal in the first two batches
        for place, end in enumerate((np.argmax, np.argmin)[: len(self.batches)]):
            longest = [int(self.lengths[rows].max()) for rows in self.batches[place:]]
            self.batches.insert(place, self.batches.pop(place + int(end(longest))))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.batches[index]
        return write_batch(self.data, rows, int(self.lengths[rows].max()), tasks=self.tasks)


def track_places(data: TagData, rows: NDArray[Any], n_tracks: int) -> NDArray[np.int64]:
    """Places of the first tracks of some jets among all, -1 where there is none, (n, n_tracks)."""
    places = data.offsets[rows][:, None] + np.arange(n_tracks)
    return np.where(places < data.offsets[rows + 1][:, None], places, -1)


def track_inputs(
    data: TagData, rows: NDArray[Any], n_tracks: int
) -> dict[str, NDArray[np.float32]]:
    """Inputs of a network for some jets, with so many tracks of each."""
    places = track_places(data, rows, n_tracks)
    there = places >= 0
    tracks = np.zeros((len(rows), n_tracks, 1 + len(TRACK_INPUTS)), dtype=np.float32)
    tracks[there, 0] = 1.0
    tracks[there, 1:] = data.tracks[places[there]]
    return {TRACKS: tracks, JETS: data.jets[rows]}


def write_batch(data: TagData, rows: NDArray[Any], n_tracks: int, *, tasks: bool) -> Arrays:
    """Inputs, answers and weights of some jets."""
    answers = {
        OUTPUT: np.eye(len(CLASSES), dtype=np.float32)[data.label[rows]],
        RATIO: data.log_ratio[rows, None],
    }
    if tasks:
        places = track_places(data, rows, n_tracks)
        there = places >= 0
        answers[ORIGIN] = np.where(there, data.origin[places], -1).astype(np.float32)
        vertex = np.where(there, data.vertex[places], -1)
        both = (vertex[:, :, None] >= 0) & (vertex[:, None, :] >= 0)
        both &= ~np.eye(n_tracks, dtype=bool)
        same = vertex[:, :, None] == vertex[:, None, :]
        answers[PAIRS] = np.where(both, same, -1.0).astype(np.float32)
    return track_inputs(data, rows, n_tracks), answers, data.weight[rows]


def fit_tagger(
    training: TagData,
    held_out: TagData,
    config: TaggerTraining | None = None,
    *,
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> Tagger:
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : TagData
        Weighted.
    config : TaggerTraining, optional
    inputs : str
        What the jets are, such as a hash of their content: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    config = config or TaggerTraining()
    network, train = config.network, config.train

    def build() -> keras.Model:
        model = build_tagger(network)
        adapt_scales(model, training.tracks, training.jets)
        return model

    feed, check = (
        TrackBatches(
            data, batch_size=train.batch_size, seed=train.seed, shuffle=shuffle,
            tasks=network.tasks,
        )
        for data, shuffle in ((training, True), (held_out, False))
    )  # fmt: skip

    def file(_: keras.Model) -> dict[str, Any]:
        few = np.arange(min(N_REFERENCE, len(held_out.label)))
        return {
            "inputs": track_inputs(held_out, few, MAX_TRACKS),
            "kind": "tracks",
            "normalisation": f"{TRACKS}: 1 where there is one, {', '.join(TRACK_INPUTS)} in mm, "
            f"GeV and rad; {JETS}: {', '.join(JET_COLUMNS)} in GeV; {OUTPUT}: "
            f"{', '.join(CLASSES.values())}, as if all were equally common",
        }

    found = fit_kept(
        network.kind, build, (feed, check), train,
        settings={"network": asdict(network), "inputs": inputs}, export=file if export else None,
        say=say,
    )  # fmt: skip
    return Tagger(config, *found)


def _batches(
    data: TagData, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.float32]]]]:
    """Rows of jets of similar length, places of their tracks, and inputs."""
    stream = TrackBatches(data, batch_size=batch_size)
    for rows in stream.batches:
        n_tracks = int(stream.lengths[rows].max())
        yield rows, track_places(data, rows, n_tracks), track_inputs(data, rows, n_tracks)


def _said(
    model: Any, output: str, data: TagData, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Rows, places of the tracks and what a layer says, batch by batch."""
    one = keras.Model(model.inputs, model.get_layer(output).output)
    run = tf.function(one, reduce_retracing=True)
    for rows, places, feed in _batches(data, batch_size):
        asked = [feed[tensor.name] for tensor in model.inputs]
        yield rows, places, np.asarray(run(asked, training=False))


def apply_tagger(
    model: Any, data: TagData, *, output: str = OUTPUT, batch_size: int = 1000
) -> NDArray[np.float32]:
    """What a network says of jets, (n, ...), or, for the layers "origin", logits, and "shares", of
    tracks in their order, (n_tracks, ...); NaN for those beyond the 40th.
    """
    found = None
    for rows, places, said in _said(model, output, data, batch_size):
        if output in OF_TRACKS:
            where, said = places[places >= 0], said[:, : places.shape[1]][places >= 0]
            n = len(data.tracks)
        else:
            where, n = rows, len(data.label)
        if found is None:
            found = np.full((n, *said.shape[1:]), np.nan, dtype=np.float32)
        found[where] = said
    return np.zeros((0, len(ORIGINS)), np.float32) if found is None else found


def find_vertices(
    model: Any, data: TagData, *, cut: float = 0.5, batch_size: int = 500
) -> NDArray[np.int64]:
    """Number of the vertex of each track, (n_tracks,): tracks that are joined by pairs whose
    probability of one vertex is above a cut; each track has one, alone if need be.
    """
    edges = []
    for _, places, logit in _said(model, PAIRS, data, batch_size):
        joined = (logit > np.log(cut / (1.0 - cut))) & (places[:, :, None] >= 0)
        jet, a, b = np.nonzero(joined & (places[:, None, :] >= 0))
        edges.append(np.stack([places[jet, a], places[jet, b]]))
    n = len(data.tracks)
    a, b = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), dtype=np.int64)
    graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


class VertexMatches(NamedTuple):
    """True vertices of at least two tracks and what was found of them."""

    jet: NDArray[np.int64]  # (n_vertices,) place of the jet
    number: NDArray[np.int64]  # (n_vertices,) of the true vertex in the jet
    efficiency: FloatArray  # (n_vertices,) share of its tracks in the best found vertex
    purity: FloatArray  # (n_vertices,) share of tracks of that one that are of this


def match_vertices(data: TagData, found: NDArray[np.int64]) -> VertexMatches:
    """Each true vertex with the found one that shares most tracks with it.

    Parameters
    ----------
    data : TagData
    found : ndarray of int, shape (n_tracks,)
        Of `find_vertices`.
    """
    known = data.vertex >= 0
    true = np.stack([data.jet_of[known], data.vertex[known].astype(np.int64)])
    (jet, number), place, n_true = np.unique(
        true, axis=1, return_inverse=True, return_counts=True
    )  # fmt: skip
    place = place.reshape(-1)
    n_found = np.bincount(found)
    both, shared = np.unique(np.stack([place, found[known]]), axis=1, return_counts=True)
    best = np.lexsort((-n_found[both[1]], shared, both[0]))  # the last of each true vertex
    last = best[np.append(np.flatnonzero(np.diff(both[0][best])), len(best) - 1)]
    efficiency = shared[last] / n_true[both[0][last]]
    purity = shared[last] / n_found[both[1][last]]
    several = n_true >= 2
    return VertexMatches(
        jet[several], number[several], efficiency[several], purity[several]
    )  # fmt: skip


def track_gradients(
    model: Any, data: TagData, weights: Mapping[str, float], *, batch_size: int = 500
) -> NDArray[np.float32]:
    """Derivative of sum_i w_i ln p_i by what the network sees of each track, in units of its width,
    times what it sees: (n_tracks, n_columns).

    Parameters
    ----------
    model : keras.Model
    data : TagData
    weights : mapping of str to float
        By class, such as {"b": 1.0, "light": -1.0}.
    """
    scale, w = model.get_layer("scale"), np.array([weights.get(k, 0.0) for k in CLASSES.values()])

    @tf.function(reduce_retracing=True)
    def slope(tracks: Any, jets: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tracks)
            said = keras.tree.flatten(model({TRACKS: tracks, JETS: jets}, training=False))[0]
            log_p = tf.math.log(tf.maximum(said, 1e-7))
            total = tf.reduce_sum(log_p * w.astype(np.float32))
        return tape.gradient(total, tracks)

    found = np.zeros((len(data.tracks), len(TRACK_INPUTS)), dtype=np.float32)
    size, width = (np.asarray(v)[1:] for v in (scale.size, scale.width))
    mean = np.asarray(scale.mean)[1:]
    for _, places, feed in _batches(data, batch_size):
        there = places >= 0
        x = feed[TRACKS][there][:, 1:]
        seen = (np.sign(x) * np.log1p(np.abs(x) / size) - mean) / width
        slopes = np.asarray(slope(feed[TRACKS], feed[JETS]))[there][:, 1:]
        # of what is seen, whose own slope is 1 / ((size + |x|) width)
        found[places[there]] = slopes * (size + np.abs(x)) * width * seen
    return found


def track_shares(model: Any, data: TagData, *, batch_size: int = 1000) -> FloatArray:
    """Share of each track in the pooling of GN1 or GN2, (n_tracks,), 1 in each jet."""
    return apply_tagger(model, data, output=SHARES, batch_size=batch_size)[:, 0].astype(np.float64)


def check_lengths(tagger: Tagger, data: TagData) -> dict[int, float]:
    """Largest difference of file and network by the number of tracks, also with room for none.

    Jets with more tracks are cut; the file is asked with no padding.
    """
    session, differences = open_session(tagger.path), {}
    rows = np.argsort(-data.n_tracks, kind="stable")[:50]
    for n in FEW:
        feed = track_inputs(data, rows, n)
        file = session.run(None, feed)
        # padded beside
        wide = {**feed, TRACKS: np.pad(feed[TRACKS], ((0, 0), (0, MAX_TRACKS + 1 - n), (0, 0)))}
        keras_says = predict_all(tagger.model, wide)
        differences[n] = max(
            float(np.max(np.abs(a - b[tuple(slice(k) for k in a.shape)]), initial=0.0))
            for a, b in zip(file, keras_says, strict=True)
        )
    return differences
