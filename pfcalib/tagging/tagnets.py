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
from pfcalib.models.pointnets import FAR, REFERENCE, CloudAttention
from pfcalib.tagging.ftagfiles import ORIGINS, TRACK_INPUTS
from pfcalib.tagging.tagdata import CLASSES, COLUMN, JET_COLUMNS, RNNIP_COLUMNS

TRACKS, JETS = "tracks", "jets"  # inputs
OUTPUT, ORIGIN, PAIRS, RATIO = "probabilities", "origin", "same_vertex", "log_ratio"  # outputs
SHARES = "shares"  # layer with the share of each track in the pooling
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
    # keras.ops adds (1, n, 1) and (1, 1, n) to (1, n, 1), taking the second for a bias
    least, most = (of(pt[:, :, None], pt[:, None, :]) for of in (ops.minimum, ops.maximum))
    log_z = ops.log(least / (least + most))
    log_mass = ops.log(least * most) + 2.0 * log_delta
    found = ops.stack(
        [log_delta / 2.0 + 1.5, ops.log(least) + log_delta, log_z / 2.0 + 1.0, log_mass / 3.0],
        axis=-1,
    )
    return found * (there[:, :, None] * there[:, None, :])[..., None]


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
        # one more, that is not there, so that no jet is without
        self.tracks = ops.pad(self.inputs[TRACKS], [[0, 0], [0, config.n_tracks or 1], [0, 0]])
        if config.n_tracks:
            self.tracks = self.tracks[:, : config.n_tracks]
        scaled = SignedLogs(name="scale")(self.tracks)
        jet = SignedLogs(name="jet_scale")(self.inputs[JETS])
        self.there = self.tracks[..., :1]
        seen = [scaled[..., 1 + i : 2 + i] for i in map(COLUMN.__getitem__, config.columns)]
        self.features = ops.concatenate([*seen, self.beside(jet)], axis=-1) * self.there

    def beside(self, jet: Tensor) -> Tensor:
        """What is known of a jet, at each of its tracks."""
        return ops.ones_like(self.there) * jet[:, None]

    def first(self, activation: Activation = "relu") -> Tensor:
        """Dense layers on each track."""
        x = self.features
        for i, width in enumerate(self.config.first_widths):
            x = layers.Dense(width, activation=activation, name=f"first{i}")(x)
        return layers.Dense(self.config.width, name="embedded")(x)

    def bias(self) -> tuple[Tensor, ...]:
        """What pairs of tracks add to their attention, (n, n_heads, n_tracks, n_tracks), if
        anything.
        """
        if not self.config.pair_widths:
            return ()
        x = pair_quantities(self.tracks, self.inputs[JETS])
        for i, width in enumerate(self.config.pair_widths):
            x = layers.Dense(width, activation=gelu, name=f"pairs{i}")(x)
        return (ops.transpose(layers.Dense(self.config.n_heads, name="pairs")(x), (0, 3, 1, 2)),)

    def pool(self, x: Tensor) -> Tensor:
        """Sum of the tracks with shares that are learnt."""
        gate = layers.Dense(1, name="gate")(x) - FAR * (1.0 - self.there)
        shares = layers.Identity(name=SHARES)(self.there * _shares(gate, axis=1))
        return ops.sum(x * shares, axis=1)

    def same_vertex(self, x: Tensor, jet: Tensor) -> Tensor:
        """Logit of two tracks being of one vertex, the same for both orders, (n, n_tracks,
        n_tracks): a dense layer of both and the jet, looked up before pairs are made.
        """
        width = (*self.config.head_widths, self.config.width)[0]
        own = layers.Dense(width, name="own")(x)
        other, context = (
            layers.Dense(width, use_bias=False, name=name)(of)
            for name, of in (("other", x), ("context", jet))
        )
        pairs = ops.relu((own + context[:, None])[:, :, None] + other[:, None])
        pairs = layers.Dense(width, activation="relu", name="pairs_hidden")(pairs)
        logit = layers.Dense(1, name="pairs_out")(pairs)[..., 0]
        return 0.5 * (logit + ops.transpose(logit, (0, 2, 1)))


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
    config = parts.config
    n_columns = parts.features.shape[-1]
    # what has been padded has forgotten its length; a loop is refused in a file
    x = ops.reshape(parts.features, (-1, config.n_tracks, n_columns))
    there = ops.reshape(parts.there, (-1, config.n_tracks)) > 0.5
    return x, layers.LSTM(config.width, unroll=True, name="memory")(x, mask=there)


def _dips(parts: _Parts) -> tuple[Tensor, Tensor]:
    x = ops.relu(parts.first())
    return x, ops.sum(x * parts.there, axis=1) / REFERENCE


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


def published_tagger(
    kind: str, small: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]], **changes: Any
) -> TaggerConfig:
    """A published kind with other sizes: those of all kinds, over them those of this one, over them
    changes.
    """
    options = {**small, **sizes.get(kind, {}), **changes}
    return replace(
        PUBLISHED[kind],
        **{  # type: ignore[arg-type]
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        },
    )


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
        tracks = ops.concatenate([x, parts.beside(pooled)], axis=-1)
        origin = head(tracks, len(ORIGINS), "origin_all")[:, :-1]
        pairs = parts.same_vertex(x, pooled)[:, :-1, :-1]
        outputs += [
            layers.Identity(name=name)(of) for name, of in ((ORIGIN, origin), (PAIRS, pairs))
        ]
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
