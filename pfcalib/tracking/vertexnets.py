"""Networks that make a histogram of collisions of a density of tracks, or of the tracks themselves.

The density goes through convolutions (arXiv:1906.08306, all of them as in arXiv:2103.04962) or a
U-Net (arXiv:1505.04597, as in arXiv:2309.12417). The tracks are taken in intervals of 100 bins, as
in arXiv:2309.12417: a dense network on where a track passes each bin, a sum over the tracks, and
convolutions. All are trained on the published loss of ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.models.blocks import Tensor
from pfcalib.tracking.beamline import SIGMA, SLOPE, Z0, BeamEvents
from pfcalib.tracking.vertexdensity import BIN, CHANNELS, N_BINS, REACH, Z_MIN, Targets
from pfcalib.training.fit import Arrays, Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

KINDS = ("convolutions", "unet", "tracks")
OUTPUT, LOGARITHM = "share", "logarithm"
INTERVAL, MARGIN = 100, 10  # bins of an interval, and beyond it on either side
EPSILON, ASYMMETRY = 1e-5, 5.0  # published
N_REFERENCE = 128  # events or intervals that check an export
MEANING = (
    "density: sum and sum of squares of exp(-chi2 / 2), x, y [mm], see "
    "pfcalib.tracking.vertexdensity; tracks: d [mm], phi [rad], slope, z0 from the interval's "
    f"first bin [mm], sigma [mm], zeros behind the last; {OUTPUT}: x / (1 + x) of the content x "
    f"of a bin of {BIN} mm"
)


@dataclass(frozen=True, kw_only=True)
class VertexNetConfig:
    """A network and its training.

    Parameters
    ----------
    kind : str
        Of KINDS.
    widths : tuple of int
        Channels of the convolutions; of the levels of the U-Net.
    kernels : tuple of int
        Bins of each convolution; of the U-Net the first is that of all.
    latent : tuple of int
        Of the dense layers on a track in a bin; kind "tracks" only.
    n_tracks : int
        Of an interval at most, those that pass nearest to its middle; kind "tracks" only.
    train : TrainConfig
        Its loss must be "mae": the network that is trained gives its own loss, to be nought.
    """

    kind: str = "convolutions"
    widths: tuple[int, ...] = (20, 10, 10, 10, 1)
    kernels: tuple[int, ...] = (25, 15, 15, 15, 5)
    latent: tuple[int, ...] = (16, 16, 8)
    n_tracks: int = 48
    train: TrainConfig = field(default_factory=lambda: TrainConfig(loss="mae"))

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.train.loss != "mae":
            raise ConfigError(
                f"VertexNetConfig: kind = {self.kind!r}, loss = {self.train.loss!r}, expected one "
                f"of {', '.join(KINDS)}, and 'mae'"
            )
        if not min(*self.widths, *self.kernels, *self.latent, self.n_tracks) > 0:
            raise ConfigError(f"VertexNetConfig: expected sizes above 0, not {self}")


@keras.saving.register_keras_serializable(package="pfcalib")
class RatioLoss(layers.Layer):
    """Mean over the bins that count of ln cosh ln r (1 + c exp(-r)), r = (x + e) / (y + e); (n, 1).

    That is the published -ln(2 r / (r^2 + 1)), which punishes too little more than too much.
    """

    def call(self, logarithm: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        ratio = logarithm - ops.log(target + EPSILON)
        size = ops.abs(ratio)
        loss = size + ops.log1p(ops.exp(-2.0 * size)) - float(np.log(2.0))
        loss = loss * (1.0 + ASYMMETRY * ops.exp(-ops.exp(ops.minimum(ratio, 5.0))))
        return ops.mean(counts * loss, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="pfcalib")
class Passages(layers.Layer):
    """Where tracks pass the bins of an interval, (n, n_tracks, n_bins, 6): x, y and the distance
    over its error, within and across the plane of track and beam; error; slope. And whether a track
    is near, (n, n_tracks, n_bins, 1).
    """

    def call(self, tracks: Tensor) -> tuple[Tensor, Tensor]:
        d, phi, slope, z0, sigma = (tracks[..., i : i + 1] for i in range(5))
        z = BIN * (np.arange(-MARGIN, INTERVAL + MARGIN, dtype=np.float32) + 0.5)
        u = slope * (z - z0)
        inside = ops.clip(u, -1.0, 1.0)
        x = inside * ops.cos(phi) - d * ops.sin(phi)
        y = inside * ops.sin(phi) + d * ops.cos(phi)
        error = sigma + 1e-3
        near = ops.cast((ops.abs(u) < REACH + 3.0 * sigma) & (sigma > 0.0), "float32")
        same = ops.ones_like(u)
        parts = (
            *(x / 0.1, y / 0.1, ops.clip(u / error, -8.0, 8.0)),
            *(same * ops.clip(d / error, -8.0, 8.0), same * ops.log(error / 0.05)),
            same * ops.log(ops.abs(slope) + 1e-3),
        )
        near = near[..., None]
        return near * ops.stack(parts, axis=-1), near


@keras.saving.register_keras_serializable(package="pfcalib")
class SumTracks(layers.Layer):
    """Sum over the tracks that are near, (n, n_bins, width)."""

    def call(self, x: Tensor, near: Tensor) -> Tensor:
        return 0.1 * ops.sum(x * near, axis=1)


def build_vertex_net(config: VertexNetConfig) -> keras.Model:
    """Untrained network.

    Returns
    -------
    keras.Model
        Input "density" (n, N_BINS, 4) or "tracks" (n, n_tracks, 5) float32; output "share"
        (n, N_BINS) or (n, INTERVAL), x / (1 + x) of the content x of each bin.
    """
    if config.kind == "tracks":
        inputs = keras.Input((config.n_tracks, 5), name="tracks")
        x, near = Passages(name="passages")(inputs)
        for i, width in enumerate(config.latent):
            x = layers.Dense(width, activation="relu", name=f"dense{i}")(x)
        x = SumTracks(name="sum")(x, near)
        x = layers.Cropping1D(MARGIN, name="crop")(_convolutions(x, config))
    else:
        inputs = keras.Input((N_BINS, len(CHANNELS)), name="density")
        x = layers.Concatenate(name="scaled")(
            [ops.log(1.0 + inputs[..., :2]), 10.0 * inputs[..., 2:]]
        )
        x = _unet(x, config) if config.kind == "unet" else _convolutions(x, config)
    x = layers.Conv1D(
        1, 5, padding="same", bias_initializer=keras.initializers.Constant(float(np.log(EPSILON))),
        name="last",
    )(x)  # fmt: skip
    # the logarithm of the content, which the loss is a function of, and the content over itself and
    # one: empty bins learn as well as full ones, and all outputs lie between 0 and 1
    x = layers.Reshape((x.shape[1],), name=LOGARITHM)(x)
    x = layers.Activation("sigmoid", name=OUTPUT)(x)
    return keras.Model({inputs.name: inputs}, x, name=f"vertices_{config.kind}")


def _convolutions(x: Tensor, config: VertexNetConfig) -> Tensor:
    for i, (width, kernel) in enumerate(zip(config.widths, config.kernels, strict=True)):
        x = layers.Conv1D(width, kernel, padding="same", name=f"conv{i}")(x)
        x = layers.LeakyReLU(0.01, name=f"relu{i}")(x)
    return x


def _unet(x: Tensor, config: VertexNetConfig) -> Tensor:
    """Halves the bins level by level and joins what each level knew on the way back."""
    size, known = config.kernels[0], []

    def block(x: Tensor, width: int, name: str) -> Tensor:
        for i in range(2):
            x = layers.Conv1D(width, size, padding="same", name=f"{name}_{i}")(x)
            # numbers of order one all the way, which single precision rounds by little
            x = layers.LayerNormalization(name=f"{name}_norm{i}")(x)
            x = layers.LeakyReLU(0.01, name=f"{name}_relu{i}")(x)
        return x

    for i, width in enumerate(config.widths):
        x = block(x, width, f"down{i}")
        if i + 1 < len(config.widths):
            known.append(x)
            x = layers.MaxPooling1D(2, name=f"half{i}")(x)
    for i in reversed(range(len(config.widths) - 1)):
        x = layers.UpSampling1D(2, name=f"double{i}")(x)
        x = layers.Concatenate(name=f"join{i}")([x, known[i]])
        x = block(x, config.widths[i], f"up{i}")
    return x


def build_trained(config: VertexNetConfig) -> keras.Model:
    """The network with its loss as output, and "target" and "counts" as further inputs."""
    network = build_vertex_net(config)
    output = network.get_layer(LOGARITHM).output
    more = {name: keras.Input((output.shape[-1],), name=name) for name in ("target", "counts")}
    loss = RatioLoss(name="loss")(output, more["target"], more["counts"])
    return keras.Model({**network.input, **more}, loss, name=network.name)


def inner(model: keras.Model) -> keras.Model:
    """Of a model of `build_trained` the network itself."""
    inputs = {name: model.input[name] for name in model.input if name not in ("target", "counts")}
    share = layers.Activation("sigmoid", name=OUTPUT)(model.get_layer(LOGARITHM).output)
    return keras.Model(inputs, share, name=model.name)


def intervals(events: BeamEvents, n_tracks: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tracks of all intervals that any track passes, and which these are.

    Returns
    -------
    tracks : ndarray, shape (n, n_tracks, 5)
        Of `beamline.COLUMNS`, z0 from the first bin of the interval; zeros behind the last.
    place : ndarray, shape (n,)
        Event times intervals of an event, plus interval.
    """
    n = N_BINS // INTERVAL
    low = Z_MIN + BIN * INTERVAL * np.arange(n)
    event = np.repeat(np.arange(len(events.n_tracks)), events.n_tracks)
    tracks = events.tracks
    reach = (REACH + 3.0 * tracks[:, SIGMA]) / np.abs(tracks[:, SLOPE])
    middle = low + 0.5 * BIN * INTERVAL
    away = np.abs(tracks[:, Z0, None] - middle) - 0.5 * BIN * (INTERVAL + 2 * MARGIN)
    row, at = np.nonzero(away < reach[:, None])
    place, far = event[row] * n + at, (away / reach[:, None])[row, at]
    order = np.lexsort((far, place))
    row, place = row[order], place[order]
    found, first, counts = np.unique(place, return_index=True, return_counts=True)
    slot = np.arange(len(place)) - np.repeat(first, counts)
    kept = slot < n_tracks
    out = np.zeros((len(found), n_tracks, 5), np.float32)
    number = np.repeat(np.arange(len(found)), counts)
    out[number[kept], slot[kept]] = tracks[row[kept]]
    filled = out[..., SIGMA] > 0.0
    out[..., Z0] -= np.where(filled, low[found % n][:, None], 0.0).astype(np.float32)
    return out, found


def training_arrays(
    config: VertexNetConfig, inputs: NDArray[Any], wanted: Targets,
    place: NDArray[np.int64] | None = None,
) -> Arrays:  # fmt: skip
    """What `fit_vertex_net` trains on.

    Parameters
    ----------
    config : VertexNetConfig
    inputs : ndarray
        Densities, or tracks of `intervals`.
    wanted : Targets
        Of the same events.
    place : ndarray, shape (n,)
        Of the intervals.
    """
    if place is not None:
        wanted = Targets(
            wanted.histogram.reshape(-1, INTERVAL)[place],
            wanted.counts.reshape(-1, INTERVAL)[place],
        )
    name = "tracks" if config.kind == "tracks" else "density"
    feed = {name: inputs, "target": wanted.histogram, "counts": wanted.counts.astype(np.float16)}
    return feed, np.zeros((len(inputs), 1), np.float32)


def fit_vertex_net(
    config: VertexNetConfig, training: Arrays, held_out: Arrays, *, events: Mapping[str, Any],
    say: Say = print,
) -> Kept:  # fmt: skip
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    config : VertexNetConfig
    training, held_out : (inputs, zeros)
        See `training_arrays`.
    events : mapping
        JSON values: which events these are, part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    name = "tracks" if config.kind == "tracks" else "density"

    def file(model: keras.Model) -> dict[str, Any]:
        few = held_out[0][name][:N_REFERENCE].astype(np.float32)
        # where there are too few, they are turned along the beam, or along the list of tracks
        turns = range(-(-N_REFERENCE // len(few)))
        turned = np.concatenate([np.roll(few, 7 * turn, axis=1) for turn in turns])[:N_REFERENCE]
        return {
            "model": inner(model), "inputs": {name: turned}, "kind": f"vertex_{name}",
            "normalisation": MEANING,
        }  # fmt: skip

    return fit_kept(
        f"vertices_{config.kind}", lambda: build_trained(config), (training, held_out),
        config.train, settings={"config": asdict(config), "events": dict(events)}, export=file,
        say=say,
    )  # fmt: skip


def apply_vertex_net(
    model: keras.Model, inputs: NDArray[Any], *, place: NDArray[np.int64] | None = None,
    n_events: int | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Histograms of events, shape (n_events, N_BINS).

    Parameters
    ----------
    model : keras.Model
        Of `fit_vertex_net`.
    inputs : ndarray
        Densities, or tracks of `intervals`.
    place, n_events
        Of the intervals; bins of those that no track passes are empty.
    """
    network = inner(model)
    (name,) = network.input
    share = predict(network, {name: np.asarray(inputs, np.float32)}, batch=64)
    found = share / np.maximum(1.0 - share, 1e-6)
    if place is None:
        return found
    if n_events is None:
        raise ConfigError("apply_vertex_net: intervals need n_events")
    out = np.zeros((n_events * (N_BINS // INTERVAL), INTERVAL), np.float32)
    out[place] = found
    return out.reshape(n_events, N_BINS)
