"""Networks that tell the flavour of a jet from its tracks: RNNIP, DIPS, GN1, GN2 and ParT, each in
its published size or a smaller one.

All take any number of tracks, none too, and scale them inside. RNNIP: ATL-PHYS-PUB-2017-003; DIPS:
ATL-PHYS-PUB-2020-014; GN1: ATL-PHYS-PUB-2022-027, with the attention of arXiv:2105.14491; GN2:
arXiv:2505.19689; ParT: arXiv:2202.03772.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.models.blocks import Tensor
from pfcalib.models.pointnets import FAR, CloudAttention, MorePoints, PooledCloud
from pfcalib.tagging.ftagfiles import ORIGINS, TRACK_INPUTS
from pfcalib.tagging.tagdata import CLASSES, COLUMN, JET_COLUMNS, RNNIP_COLUMNS

TRACKS, JETS = "tracks", "jets"  # inputs
OUTPUT, ORIGIN, PAIRS, RATIO = "probabilities", "origin", "same_vertex", "log_ratio"  # outputs
WEIGHTS = {ORIGIN: 0.5, PAIRS: 1.5, RATIO: 1.0}  # in the loss, beside that of the class
SMALL = 1e-6
Activation = str | Callable[[Tensor], Tensor]


@keras.saving.register_keras_serializable(package="pfcalib")
def gelu(x: Tensor) -> Tensor:
    """GELU by a hyperbolic tangent, as the error function does not convert."""
    return ops.gelu(x, approximate=True)


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """A network on tracks; `PUBLISHED` has the sizes of each kind.

    Parameters
    ----------
    kind : str
        Of BODIES.
    columns : tuple of str
        Of TRACK_INPUTS, what it sees of a track.
    first_widths : tuple of int
        Of the dense layers on each track.
    width, n_heads, n_blocks : int
        Of the attention, or of the LSTM.
    n_class_blocks : int
        In which a token of the class asks the tracks.
    wide : int
        Widths that the dense layers between attentions have.
    head_widths : tuple of int
        Of the dense layers before each answer.
    pair_widths : tuple of int
        Of what distances and masses of two tracks add to their attention; none: nothing.
    tasks : bool
        Whether it also tells where tracks come from and which share a vertex.
    energy : bool
        Whether it also tells the true over the measured transverse momentum.
    n_tracks : int
        That count, the first of a jet; 0: all.
    dropout : float
    """

    kind: str = "gn2"
    columns: tuple[str, ...] = TRACK_INPUTS
    first_widths: tuple[int, ...] = ()
    width: int = 32
    n_heads: int = 4
    n_blocks: int = 3
    n_class_blocks: int = 0
    wide: int = 2
    head_widths: tuple[int, ...] = (32,)
    pair_widths: tuple[int, ...] = ()
    tasks: bool = False
    energy: bool = False
    n_tracks: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.kind not in BODIES:
            raise ConfigError(f"{name}: kind = {self.kind!r}, expected one of {', '.join(BODIES)}")
        if unknown := sorted(set(self.columns) - set(TRACK_INPUTS)):
            raise ConfigError(f"{name}: unknown columns {', '.join(unknown)}")
        if self.width % self.n_heads:
            raise ConfigError(
                f"{name}: width = {self.width} is no multiple of n_heads = {self.n_heads}"
            )
        if self.kind == "rnnip" and not self.n_tracks:
            raise ConfigError(f"{name}: rnnip reads a number of tracks: n_tracks = 0")
        if self.tasks and self.kind in ("rnnip", "dips"):
            raise ConfigError(f"{name}: {self.kind} has no answer for each track")


@keras.saving.register_keras_serializable(package="pfcalib")
class SignedLogs(layers.Layer):
    """Columns as sign(x) ln(1 + |x| / size), shifted and scaled to mean 0 and width 1; `adapt`
    takes size, mean and width of each column from examples, and the model keeps them.
    """

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        self.size, self.mean, self.width = (
            self.add_weight(shape=shape, initializer=start, trainable=False, name=name)
            for name, start in (("size", "ones"), ("mean", "zeros"), ("width", "ones"))
        )

    def adapt(self, values: ArrayLike) -> None:
        """From examples (n, n_columns)."""
        columns = np.asarray(values, dtype=np.float64)
        size = np.ma.median(np.ma.masked_equal(np.abs(columns), 0.0), axis=0).filled(1.0)
        logs = np.sign(columns) * np.log1p(np.abs(columns) / size)
        width = logs.std(axis=0)
        for weight, found in (
            (self.size, size),
            (self.mean, logs.mean(axis=0)),
            (self.width, np.where(width > 0.0, width, 1.0)),
        ):
            weight.assign(found.astype(np.float32))

    def call(self, inputs: Tensor) -> Tensor:
        logs = ops.sign(inputs) * ops.log(1.0 + ops.abs(inputs) / self.size)
        return (logs - self.mean) / self.width

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class TrackInputs(layers.Layer):
    """What is seen of tracks and, beside each, of the jet; whether there is a track: (n, n_tracks,
    n_columns + n_jet_columns) and (n, n_tracks, 1).
    """

    def __init__(self, places: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.places = tuple(places)

    def call(self, scaled: Tensor, tracks: Tensor, jets: Tensor) -> tuple[Tensor, Tensor]:
        there = tracks[..., :1]
        beside = ops.ones_like(there) * jets[:, None, :]
        chosen = [scaled[..., i : i + 1] for i in self.places]
        return ops.concatenate([*chosen, beside], axis=-1) * there, there

    def compute_output_shape(self, scaled_shape: Any, tracks_shape: Any, jets_shape: Any) -> Any:
        return (*scaled_shape[:2], len(self.places) + jets_shape[-1]), (*tracks_shape[:2], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "places": list(self.places)}


@keras.saving.register_keras_serializable(package="pfcalib")
class FirstTracks(layers.Layer):
    """So many tracks, the first, or zeros where there are fewer."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n

    def call(self, inputs: Tensor) -> Tensor:
        return ops.pad(inputs, [[0, 0], [0, self.n], [0, 0]])[:, : self.n]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.n, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n}


@keras.saving.register_keras_serializable(package="pfcalib")
class TrackMemory(layers.Layer):
    """State of an LSTM after the last track that is there."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.lstm = layers.LSTM(width, unroll=True, name="lstm")  # a loop is refused in a file

    def build(self, inputs_shape: Any, *_: Any) -> None:
        self.lstm.build(inputs_shape)
        self.shape = tuple(inputs_shape[1:])
        self.built = True

    def call(self, inputs: Tensor, there: Tensor) -> Tensor:
        # what has been padded has forgotten its length
        x = ops.reshape(inputs, (-1, *self.shape))
        return self.lstm(x, mask=ops.reshape(there, (-1, self.shape[0])) > 0.5)

    def compute_output_shape(self, inputs_shape: Any, *_: Any) -> Any:
        return (inputs_shape[0], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="pfcalib")
class GraphAttention(layers.Layer):
    """What each track hears from all, weighted by a dense layer of both (GATv2: a^T LeakyReLU(W x_i
    + U x_j)), (n, n_tracks, width).
    """

    def __init__(self, width: int, n_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.n_heads = width, n_heads
        self.own, self.other = (layers.Dense(width, name=name) for name in ("own", "other"))

    def build(self, inputs_shape: Any, *_: Any) -> None:
        self.own.build(inputs_shape)
        self.other.build(inputs_shape)
        shape = (self.n_heads, self.width // self.n_heads)
        self.asked = self.add_weight(shape=shape, initializer="glorot_uniform", name="asked")
        self.built = True

    def call(self, inputs: Tensor, there: Tensor) -> Tensor:
        n, size = ops.shape(inputs)[1], self.width // self.n_heads
        own, other = (
            ops.reshape(dense(inputs), (-1, n, self.n_heads, size))
            for dense in (self.own, self.other)
        )
        both = ops.leaky_relu(own[:, :, None] + other[:, None], negative_slope=0.2)
        logits = ops.sum(both * self.asked, axis=-1)  # (n, to, from, n_heads)
        share = _shares(logits - FAR * (1.0 - there[:, None]), axis=2)
        heard = ops.matmul(
            ops.transpose(share, (0, 3, 1, 2)), ops.transpose(other, (0, 2, 1, 3))
        )  # fmt: skip
        return ops.reshape(ops.transpose(heard, (0, 2, 1, 3)), (-1, n, self.width))

    def compute_output_shape(self, inputs_shape: Any, *_: Any) -> Any:
        return (*inputs_shape[:2], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "n_heads": self.n_heads}


@keras.saving.register_keras_serializable(package="pfcalib")
class TrackShares(layers.Layer):
    """Share of each track in the jet, a softmax of numbers (n, n_tracks, 1) over the tracks that
    are there.
    """

    def call(self, gate: Tensor, there: Tensor) -> Tensor:
        return there * _shares(gate - FAR * (1.0 - there), axis=1)

    def compute_output_shape(self, gate_shape: Any, *_: Any) -> Any:
        return gate_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class TrackSum(layers.Layer):
    """Sum over the tracks with these shares."""

    def call(self, inputs: Tensor, shares: Tensor) -> Tensor:
        return ops.sum(inputs * shares, axis=1)

    def compute_output_shape(self, inputs_shape: Any, *_: Any) -> Any:
        return (inputs_shape[0], inputs_shape[2])


@keras.saving.register_keras_serializable(package="pfcalib")
class TrackPairs(layers.Layer):
    """What ln Delta, ln kT, ln z and ln m^2 of two tracks add to their attention, (n, n_heads,
    n_tracks, n_tracks).
    """

    def __init__(self, n_heads: int, widths: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_heads, self.widths = n_heads, tuple(widths)
        self.dense = [
            layers.Dense(width, activation=gelu, name=f"dense{i}")
            for i, width in enumerate(self.widths)
        ]
        self.out = layers.Dense(n_heads, name="out")

    def build(self, tracks_shape: Any, *_: Any) -> None:
        shape = (tracks_shape[0], tracks_shape[1], tracks_shape[1])
        for dense, width in zip((*self.dense, self.out), (4, *self.widths), strict=True):
            dense.build((*shape, width))
        self.built = True

    def call(self, tracks: Tensor, jets: Tensor) -> Tensor:
        x = pair_quantities(tracks, jets)
        for dense in self.dense:
            x = dense(x)
        return ops.transpose(self.out(x), (0, 3, 1, 2))

    def compute_output_shape(self, tracks_shape: Any, *_: Any) -> Any:
        return (tracks_shape[0], self.n_heads, tracks_shape[1], tracks_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_heads": self.n_heads, "widths": list(self.widths)}


def pair_quantities(tracks: Tensor, jets: Tensor) -> Tensor:
    """ln Delta, ln(kT / GeV), ln z and ln(m^2 / GeV^2) of each two tracks taken as massless, each
    about of order one; 0 where one is not there, (n, n_tracks, n_tracks, 4).
    """
    there, row = tracks[..., 0], {name: i + 1 for name, i in COLUMN.items()}
    eta = jets[:, 1:2] + tracks[..., row["deta"]]
    cosh = 0.5 * (ops.exp(eta) + ops.exp(-eta))
    curvature = ops.maximum(ops.abs(tracks[..., row["qOverP"]]), 1e-5)  # at most 100 TeV
    pt = 1.0 / (curvature * cosh)
    phi = tracks[..., row["dphi"]]
    square = sum((x[:, :, None] - x[:, None, :]) ** 2 for x in (eta, phi))
    log_delta = 0.5 * ops.log(square + 1e-6)
    least = ops.minimum(pt[:, :, None], pt[:, None, :])
    log_z = ops.log(least / (pt[:, :, None] + pt[:, None, :]))
    log_mass = ops.log(pt)[:, :, None] + ops.log(pt)[:, None, :] + 2.0 * log_delta
    found = ops.stack(
        [log_delta / 2.0 + 1.5, ops.log(least) + log_delta, log_z / 2.0 + 1.0, log_mass / 3.0],
        axis=-1,
    )
    return found * (there[:, :, None] * there[:, None, :])[..., None]


@keras.saving.register_keras_serializable(package="pfcalib")
class SameVertex(layers.Layer):
    """Logit of two tracks being of one vertex, the same for both orders, (n, n_tracks, n_tracks);
    a dense layer of both and the jet, looked up before pairs are made.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.own, self.other, self.context = (
            layers.Dense(width, use_bias=name == "own", name=name)
            for name in ("own", "other", "context")
        )
        self.hidden = layers.Dense(width, activation="relu", name="hidden")
        self.out = layers.Dense(1, name="out")

    def build(self, tracks_shape: Any, jet_shape: Any) -> None:
        for dense in (self.own, self.other):
            dense.build(tracks_shape)
        self.context.build(jet_shape)
        pairs = (tracks_shape[0], tracks_shape[1], tracks_shape[1], self.width)
        self.hidden.build(pairs)
        self.out.build(pairs)
        self.built = True

    def call(self, tracks: Tensor, jet: Tensor) -> Tensor:
        own = self.own(tracks) + self.context(jet)[:, None]
        x = ops.relu(own[:, :, None] + self.other(tracks)[:, None])
        logit = self.out(self.hidden(x))[..., 0]
        return 0.5 * (logit + ops.transpose(logit, (0, 2, 1)))

    def compute_output_shape(self, tracks_shape: Any, jet_shape: Any) -> Any:
        return (*tracks_shape[:2], tracks_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="pfcalib")
class BesideTracks(layers.Layer):
    """What is known of the jet, beside each of its tracks."""

    def call(self, tracks: Tensor, jet: Tensor) -> Tensor:
        return ops.ones_like(tracks[..., :1]) * jet[:, None, :]

    def compute_output_shape(self, tracks_shape: Any, jet_shape: Any) -> Any:
        return (*tracks_shape[:2], jet_shape[-1])


@keras.saving.register_keras_serializable(package="pfcalib")
class WithoutLast(layers.Layer):
    """Without the track that stands behind all, along one axis or two."""

    def __init__(self, n_axes: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_axes = n_axes

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[:, :-1] if self.n_axes == 1 else inputs[:, :-1, :-1]

    def compute_output_shape(self, input_shape: Any) -> Any:
        fewer = [None if n is None else n - 1 for n in input_shape[1 : 1 + self.n_axes]]
        return (input_shape[0], *fewer, *input_shape[1 + self.n_axes :])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_axes": self.n_axes}


@keras.saving.register_keras_serializable(package="pfcalib")
class ClassToken(layers.Layer):
    """A row that is learnt, before those of the tracks, and what is there with it."""

    def build(self, inputs_shape: Any, *_: Any) -> None:
        self.token = self.add_weight(
            shape=(1, 1, inputs_shape[-1]), initializer="glorot_uniform", name="token"
        )

    def call(self, inputs: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        first = ops.ones_like(inputs[:, :1]) * self.token
        one = ops.ones_like(inputs[:, :1, :1])
        return ops.concatenate([first, inputs], axis=1), ops.concatenate([one, there], axis=1)

    def compute_output_shape(self, inputs_shape: Any, there_shape: Any) -> Any:
        n = None if inputs_shape[1] is None else inputs_shape[1] + 1
        return (inputs_shape[0], n, inputs_shape[2]), (inputs_shape[0], n, 1)


@keras.saving.register_keras_serializable(package="pfcalib")
class TaggerNetwork(keras.Model):
    """A functional model that brings its loss along, see `tagger_loss`."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:  # fmt: skip
        answers = y_pred if isinstance(y_pred, list | tuple) else [y_pred]
        said = dict(zip(self.output_names, answers, strict=True))
        return tagger_loss(y, said, sample_weight)


def tagger_loss(true: Mapping[str, Tensor], said: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """Cross-entropy of the class, mean over the jets with their weights, and with those of WEIGHTS
    that of the origin of tracks and of pairs of tracks sharing a vertex, each a mean over what is
    known, and the Huber loss of the energy in units of a tenth.

    Parameters
    ----------
    true : mapping of str to tensor
        By output: class one-hot, origin (n, n_tracks), -1 where not known, pairs (n, n_tracks,
        n_tracks) 1, 0 or -1, and log_ratio (n, 1).
    said : mapping of str to tensor
        Probabilities of the class, logits of origin and pairs.
    weight : tensor, shape (n,)
    """
    total = ops.sum(weight)
    entropy = -ops.sum(true[OUTPUT] * ops.log(ops.maximum(said[OUTPUT], 1e-7)), axis=-1)
    loss = ops.sum(weight * entropy) / total
    if ORIGIN in said:
        known = ops.cast(true[ORIGIN] > -0.5, "float32")
        label = ops.one_hot(ops.cast(ops.maximum(true[ORIGIN], 0.0), "int32"), len(ORIGINS))
        log_p = said[ORIGIN] - ops.logsumexp(said[ORIGIN], axis=-1, keepdims=True)
        loss -= WEIGHTS[ORIGIN] * _known_mean(ops.sum(label * log_p, axis=-1), known)
    if PAIRS in said:
        known = ops.cast(true[PAIRS] > -0.5, "float32")
        apart = ops.softplus(said[PAIRS]) - true[PAIRS] * said[PAIRS]
        loss += WEIGHTS[PAIRS] * _known_mean(apart, known)
    if RATIO in said:
        away = ops.abs(true[RATIO] - said[RATIO])[:, 0] / 0.1
        huber = ops.where(away < 1.0, 0.5 * away**2, away - 0.5)
        loss += WEIGHTS[RATIO] * ops.sum(weight * huber) / total
    return loss


def _known_mean(values: Tensor, known: Tensor) -> Tensor:
    return ops.sum(known * values) / (ops.sum(known) + SMALL)


def _shares(logits: Tensor, axis: int) -> Tensor:
    """Softmax by hand, as Keras warns of one over a single track."""
    share = ops.exp(logits - ops.max(logits, axis=axis, keepdims=True))
    return share / ops.sum(share, axis=axis, keepdims=True)


class _Parts:
    """Inputs of a network on tracks, scaled, and what is asked of them."""

    def __init__(self, config: TaggerConfig) -> None:
        self.config = config
        self.inputs = {
            TRACKS: keras.Input((None, 1 + len(TRACK_INPUTS)), name=TRACKS, dtype="float32"),
            JETS: keras.Input((len(JET_COLUMNS),), name=JETS, dtype="float32"),
        }
        tracks = self.inputs[TRACKS]
        if config.n_tracks:
            tracks = FirstTracks(config.n_tracks, name="first_tracks")(tracks)
        # one more, that is not there, so that no jet is without
        self.tracks = MorePoints(1, name="one_more")(tracks)
        scaled = SignedLogs(name="scale")(self.tracks)
        self.jet = SignedLogs(name="jet_scale")(self.inputs[JETS])
        places = tuple(1 + COLUMN[name] for name in config.columns)
        self.features, self.there = TrackInputs(places, name="features")(
            scaled, self.tracks, self.jet
        )

    def first(self, activation: Activation = "relu") -> Tensor:
        """Dense layers on each track."""
        x = self.features
        for i, width in enumerate(self.config.first_widths):
            x = layers.Dense(width, activation=activation, name=f"first{i}")(x)
        return layers.Dense(self.config.width, name="embedded")(x)

    def bias(self) -> tuple[Tensor, ...]:
        """What pairs of tracks add, if anything."""
        if not self.config.pair_widths:
            return ()
        pairs = TrackPairs(self.config.n_heads, self.config.pair_widths, name="pairs")
        return (pairs(self.tracks, self.inputs[JETS]),)

    def pool(self, x: Tensor) -> Tensor:
        """Sum of the tracks with shares that are learnt."""
        gate = layers.Dense(1, name="gate")(x)
        shares = TrackShares(name="shares")(gate, self.there)
        return TrackSum(name="pooled")(x, shares)


def _block(
    x: Tensor, there: Tensor, config: TaggerConfig, name: str, *bias: Tensor,
    activation: Activation = "relu",
) -> Tensor:  # fmt: skip
    """Attention and dense layers, each beside a shortcut."""
    y = layers.LayerNormalization(name=f"norm{name}a")(x)
    y = CloudAttention(config.width, config.n_heads, name=f"attention{name}")(y, there, *bias)
    y = layers.Dropout(config.dropout, name=f"dropout{name}a")(y)
    x = layers.Add(name=f"added{name}a")([x, y])
    y = layers.LayerNormalization(name=f"norm{name}b")(x)
    y = layers.Dense(config.wide * config.width, activation=activation, name=f"wide{name}")(y)
    y = layers.Dense(config.width, name=f"narrow{name}")(y)
    y = layers.Dropout(config.dropout, name=f"dropout{name}b")(y)
    return layers.Add(name=f"added{name}b")([x, y])


def _rnnip(parts: _Parts) -> tuple[Tensor, Tensor]:
    return parts.features, TrackMemory(parts.config.width, name="memory")(
        parts.features, parts.there
    )


def _dips(parts: _Parts) -> tuple[Tensor, Tensor]:
    x = layers.Activation("relu", name="last")(parts.first())
    return x, PooledCloud(("sum",), name="pooled")(x, _twice(parts.there))


def _twice(there: Tensor) -> Tensor:
    """Weights as `PooledCloud` wants them."""
    return layers.Concatenate(name="weights")([there, there])


def _gn1(parts: _Parts) -> tuple[Tensor, Tensor]:
    x, config = parts.first(), parts.config
    for i in range(config.n_blocks):
        y = layers.LayerNormalization(name=f"norm{i}")(x)
        y = GraphAttention(config.width, config.n_heads, name=f"graph{i}")(y, parts.there)
        x = layers.Add(name=f"added{i}")([x, layers.Activation("relu", name=f"relu{i}")(y)])
    x = layers.LayerNormalization(name="norm")(x)
    return x, parts.pool(x)


def _gn2(parts: _Parts) -> tuple[Tensor, Tensor]:
    x, bias = parts.first(), parts.bias()
    for i in range(parts.config.n_blocks):
        x = _block(x, parts.there, parts.config, f"{i}", *bias)
    x = layers.LayerNormalization(name="norm")(x)
    return x, parts.pool(x)


def _part(parts: _Parts) -> tuple[Tensor, Tensor]:
    config = parts.config
    x, bias = parts.first(gelu), parts.bias()
    for i in range(config.n_blocks):
        x = _block(x, parts.there, config, f"{i}", *bias, activation=gelu)
    x = layers.LayerNormalization(name="norm")(x)
    # the token alone learns from the blocks of the class: tracks come to each as they were
    token, without = ClassToken(name="token"), replace(config, dropout=0.0)
    rows, there = token(x, parts.there)
    for i in range(config.n_class_blocks):
        asked = _block(rows, there, without, f"_class{i}", activation=gelu)
        rows = layers.Concatenate(axis=1, name=f"rows{i}")([asked[:, :1], rows[:, 1:]])
    x_class = layers.LayerNormalization(name="norm_class")(rows[:, 0])
    return x, x_class


BODIES: dict[str, Callable[[_Parts], tuple[Tensor, Tensor]]] = {
    "rnnip": _rnnip,
    "dips": _dips,
    "gn1": _gn1,
    "gn2": _gn2,
    "part": _part,
}
# sizes as far as they were published
PUBLISHED: dict[str, TaggerConfig] = {
    "rnnip": TaggerConfig(
        kind="rnnip", columns=RNNIP_COLUMNS, width=50, n_heads=1, head_widths=(10,), n_tracks=15
    ),
    "dips": TaggerConfig(
        kind="dips", first_widths=(100, 100), width=128, head_widths=(100, 100, 100, 30)
    ),
    "gn1": TaggerConfig(
        kind="gn1", first_widths=(64, 64, 64), width=64, n_heads=2, n_blocks=3,
        head_widths=(128, 64, 32), tasks=True,
    ),
    "gn2": TaggerConfig(
        kind="gn2", first_widths=(256,), width=256, n_heads=8, n_blocks=4,
        head_widths=(128, 64, 32), tasks=True,
    ),
    "part": TaggerConfig(
        kind="part", first_widths=(128, 512), width=128, n_heads=8, n_blocks=8, n_class_blocks=2,
        wide=4, head_widths=(), pair_widths=(64, 64, 64), energy=True, dropout=0.1,
    ),
}  # fmt: skip


def build_tagger(config: TaggerConfig, *, seed: int | None = None) -> TaggerNetwork:
    """Untrained network.

    Parameters
    ----------
    config : TaggerConfig
    seed : int, optional
        Sets the random state of Keras and so the first weights.

    Returns
    -------
    TaggerNetwork
        Inputs "tracks" (n, any, 1 + len(TRACK_INPUTS)) float32, whose first column is 1 where
        there is a track, and "jets" (n, len(JET_COLUMNS)), both in the units of `tagdata`; the
        layers "scale" and "jet_scale" are to be adapted. Outputs "probabilities" (n, 3), softmax;
        with tasks "origin" (n, any, 8) and "same_vertex" (n, any, any), logits; with energy
        "log_ratio" (n, 1).
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    parts = _Parts(config)
    x, pooled = BODIES[config.kind](parts)

    def head(of: Tensor, n: int, name: str, activation: str | None = None) -> Tensor:
        for i, width in enumerate(config.head_widths):
            of = layers.Dense(width, activation="relu", name=f"{name}_dense{i}")(of)
        return layers.Dense(n, activation=activation, name=name)(of)

    outputs = [head(pooled, len(CLASSES), OUTPUT, "softmax")]
    if config.tasks:
        beside = layers.Concatenate(name="track_and_jet")(
            [x, BesideTracks(name="beside")(x, pooled)]
        )
        tracks = head(beside, len(ORIGINS), "origin_all")
        outputs.append(WithoutLast(1, name=ORIGIN)(tracks))
        width = (*config.head_widths, config.width)[0]
        pairs = SameVertex(width, name="same_vertex_all")(x, pooled)
        outputs.append(WithoutLast(2, name=PAIRS)(pairs))
    if config.energy:
        outputs.append(head(pooled, 1, RATIO))
    return TaggerNetwork(
        parts.inputs, outputs if len(outputs) > 1 else outputs[0], name=config.kind
    )


def adapt_scales(
    model: keras.Model, tracks: NDArray[np.float32], jets: NDArray[np.float32]
) -> None:
    """Give the network the scales of tracks (n_tracks, n_columns) and jets on which it is to be
    trained.
    """
    valid = np.ones((len(tracks), 1), dtype=np.float32)
    model.get_layer("scale").adapt(np.concatenate([valid, tracks], axis=1))
    model.get_layer("jet_scale").adapt(jets)
