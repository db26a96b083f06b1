"""Training of networks on clouds of points: batches of clouds of about the same length, padded no
further than they must be, and networks that are kept and exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, locked, new_file
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.errors import ConfigError
from pfcalib.features.clouds import (
    ATHENA_FEATURES,
    E_MEAN,
    E_WIDTH,
    LAYOUTS,
    Clouds,
    count_points,
    join_clouds,
    write_points,
)
from pfcalib.models.blocks import Tensor, adapt_bins
from pfcalib.models.families import copy_weights
from pfcalib.models.pointnets import POINT_NETWORKS, build_pointnet
from pfcalib.training.fit import Arrays, Say, TrainConfig, TrainResult, fit_model

N_ADAPT, N_REFERENCE = 20_000, 500  # clouds that tell the scale of sums, and that check an export
ROUND = 16  # points that the length of a batch is a multiple of, so that few graphs are compiled
N_SORTED = 40  # batches whose clouds are sorted by length together
ATHENA_POINTS = 1086  # length of the input of Athena's neural E/p
KIND = "cloud_"  # of a contract, before the layout


class CloudData(NamedTuple):
    """Clouds and what a network should say of them."""

    clouds: Clouds
    answers: NDArray[np.float32]  # (n, n_answers) classes or target
    more: Mapping[str, NDArray[np.float32]] = {}  # other inputs by name, (n, width)

    def take(self, rows: NDArray[Any]) -> CloudData:
        """Some of them, by place or mask."""
        clouds, rows = self.clouds, np.arange(self.clouds.n_clouds)[rows]
        sizes = np.diff(clouds.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        points = np.arange(offsets[-1]) + np.repeat(clouds.offsets[rows] - offsets[:-1], sizes)
        part = clouds._replace(
            offsets=offsets,
            cell=clouds.cell[points],
            energy=clouds.energy[points],
            centre=clouds.centre[rows],
            track=clouds.track[rows],
        )
        return CloudData(part, self.answers[rows], {k: v[rows] for k, v in self.more.items()})


def join_data(parts: Sequence[CloudData]) -> CloudData:
    """Several of them, with the same other inputs and cells, one after the other."""
    more = {name: np.concatenate([part.more[name] for part in parts]) for name in parts[0].more}
    answers = np.concatenate([part.answers for part in parts])
    return CloudData(join_clouds([part.clouds for part in parts]), answers, more)


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """A network on points and its training.

    Parameters
    ----------
    name : str
        Of `models.pointnets.POINT_NETWORKS`.
    options : mapping
        Of its configuration.
    n_points : int
        Points of a cloud at most.
    train : TrainConfig
        Its seed is that of the first weights too.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    n_points: int = 128
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=256, epochs=20, schedule="cosine_steps", clip_norm=1.0
        )
    )

    def __post_init__(self) -> None:
        if self.name not in POINT_NETWORKS:
            raise ConfigError(
                f"unknown network {self.name!r}: expected one of {', '.join(POINT_NETWORKS)}"
            )
        if self.n_points < 1 or "n_points" in self.options:
            raise ConfigError(f"CloudConfig: n_points = {self.n_points}, expected above 0, once")

    @property
    def layout(self) -> str:
        """Of `features.clouds.LAYOUTS`."""
        return str(self.options.get("layout", "cells"))


class CloudNetwork(NamedTuple):
    """A trained network."""

    config: CloudConfig
    model: Any  # keras.Model for any number of points, with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file, for n_points; shorter clouds are padded with zeros


class CloudStream(keras.utils.PyDataset):
    """Batches of clouds of about the same length, padded to the longest of them.

    Parameters
    ----------
    data : CloudData
    layout : str
    n_points : int
        At most.
    batch_size, seed : int
    shuffle : bool
        In a new order each epoch; else by length.
    """

    def __init__(
        self, data: CloudData, *, layout: str, n_points: int, batch_size: int, seed: int = 1,
        shuffle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(workers=1, use_multiprocessing=False)
        self.data, self.layout, self.batch_size = data, layout, batch_size
        self.seed, self.shuffle, self.n_clusters = seed, shuffle, data.clouds.n_clouds
        longest = np.minimum(count_points(data.clouds), n_points)
        self.lengths = np.minimum(-(-longest // ROUND) * ROUND, n_points)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order of the clouds in that epoch, counted from 0."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch))
        n, size = self.n_clusters, self.batch_size
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        block = size * N_SORTED if self.shuffle else n
        parts = [order[i : i + block] for i in range(0, n, max(block, 1))]
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in parts])
        self.order = [order[i : i + size] for i in range(0, n, size)]
        if self.shuffle:
            self.order = [self.order[i] for i in rng.permutation(len(self.order))]
        # Keras takes an axis for fixed that is equal in the first two batches
        for place, end in enumerate((np.argmax, np.argmin)[: len(self.order)]):
            longest = [int(self.lengths[rows].max()) for rows in self.order[place:]]
            self.order.insert(place, self.order.pop(place + int(end(longest))))

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.order[index]
        n_points = int(self.lengths[rows].max(initial=1))
        points = write_points(self.data.clouds, rows, n_points, layout=self.layout)
        more = {name: array[rows] for name, array in self.data.more.items()}
        return {"points": points, **more}, self.data.answers[rows]


def fit_cloud(
    training: CloudData,
    held_out: CloudData,
    config: CloudConfig,
    *,
    inputs: str,
    folder: Path | None = None,
    export: bool = True,
    say: Say = print,
) -> CloudNetwork:
    """Train a network on clouds and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : CloudData
    config : CloudConfig
    inputs : str
        What the clouds and answers are, such as a hash of their content and settings: part of the
        key of the cache.
    folder : path, optional
        Where trainings are kept, each in a folder of its own; in the cache by default.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.

    Raises
    ------
    ConfigError
        If there is nothing to train on or to validate with.
    """
    if not (training.clouds.n_clouds and held_out.clouds.n_clouds):
        raise ConfigError("a network on points needs clouds to train on and others to validate")
    name, train, layout = config.name, config.train, config.layout
    key = cache_key("features", "training", config=asdict(config), inputs=inputs)
    path = (folder or cache_folder() / "models") / f"{name}-{key}" / f"{name}.onnx"
    with locked(path.parent):
        model = build_pointnet(name, seed=train.seed, **config.options)
        adapt_bins(model, _padded(training, np.arange(N_ADAPT), config))
        feed, check = (
            CloudStream(
                data, layout=layout, n_points=config.n_points, batch_size=train.batch_size,
                seed=train.seed, shuffle=shuffle,
            )
            for data, shuffle in ((training, True), (held_out, False))
        )  # fmt: skip
        result = fit_model(model, feed, check, train, out_dir=path.parent, say=say)
        if export and not contract_path(path).exists():  # it is written last
            export_onnx(
                fixed_length(model, config),
                path,
                inputs=_padded(held_out, np.arange(N_REFERENCE), config),
                kind=f"{KIND}{layout}",
                training={**asdict(config), "inputs": inputs, "best_epoch": result.best_epoch},
                normalisation=f"points: {', '.join(LAYOUTS[layout])}, see pfcalib.features.clouds",
            )
    return CloudNetwork(config, model, result, path)


def fixed_length(model: Any, config: CloudConfig) -> Any:
    """The same network with an axis of points of fixed length, as files are."""
    same = build_pointnet(config.name, n_points=config.n_points, **config.options)
    copy_weights(model, same)
    return same


def _padded(
    data: CloudData, rows: NDArray[np.int64], config: CloudConfig
) -> dict[str, NDArray[np.float32]]:
    """Inputs of some clouds, all of the largest length."""
    rows = rows[rows < data.clouds.n_clouds]
    points = write_points(data.clouds, rows, config.n_points, layout=config.layout)
    return {"points": points, **{name: array[rows] for name, array in data.more.items()}}


def apply_cloud(network: CloudNetwork, data: CloudData, *, batch_size: int = 500) -> Any:
    """Outputs of a network for clouds, shape (n, n_outputs) float32, in their order."""
    stream = CloudStream(
        data, layout=network.config.layout, n_points=network.config.n_points,
        batch_size=batch_size,
    )  # fmt: skip
    outputs = [
        ops.convert_to_numpy(network.model(stream[i][0], training=False))
        for i in range(len(stream))
    ]
    found = np.concatenate(outputs)
    found[np.concatenate(stream.order)] = found.copy()
    return found


@keras.saving.register_keras_serializable(package="pfcalib")
class LogMomentum(layers.Layer):
    """ln of the momentum in GeV of the track of each cloud in Athena's layout, (n, 1)."""

    def call(self, inputs: Tensor) -> Tensor:
        is_track = ops.cast(inputs[:, :, 4:5] > 0.5, "float32")
        energy = ops.exp(inputs[:, :, :1] * E_WIDTH + E_MEAN) * is_track
        return ops.log(ops.maximum(ops.sum(energy, axis=1), 1e-3))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], 1)


@keras.saving.register_keras_serializable(package="pfcalib")
class MeanAndWidth(layers.Layer):
    """Mean and logarithm of the width of a mixture of one Gaussian, the mean shifted."""

    def call(self, mixture: Tensor, shift: Tensor) -> Tensor:
        return ops.concatenate([mixture[:, 1:2] + shift, mixture[:, 2:3]], axis=-1)

    def compute_output_shape(
        self, mixture_shape: tuple[int | None, ...], shift_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (mixture_shape[0], 2)


def athena_model(network: CloudNetwork) -> Any:
    """A network on Athena's layout, whose head is a mixture of one Gaussian in ln(E / p), as one of
    Athena's neural E/p.

    Returns
    -------
    keras.Model
        Input "points" (n, 1086, 5); output "log_energy" (n, 2), ln(E / GeV) and the logarithm of
        its standard deviation.

    Raises
    ------
    ConfigError
        If the network has another layout or head.
    """
    config = network.config
    if (config.layout, config.options.get("head"), config.options.get("n_components")) != (
        "athena", "mixture", 1,
    ):  # fmt: skip
        raise ConfigError(
            "Athena's neural E/p is made of a network with layout 'athena' and the head 'mixture' "
            "of one component"
        )
    shape = (ATHENA_POINTS, len(ATHENA_FEATURES))
    points = keras.Input(shape, name="points", dtype="float32")
    inner = build_pointnet(config.name, n_points=ATHENA_POINTS, **config.options)
    copy_weights(network.model, inner)
    shift = LogMomentum(name="log_momentum")(points)
    output = MeanAndWidth(name="log_energy")(inner({"points": points}), shift)
    return keras.Model({"points": points}, output, name=f"eoverp_{config.name}")


def export_athena(network: CloudNetwork, data: CloudData, path: Path) -> Path:
    """Write a network as one of Athena's neural E/p, with its contract, for any number of tracks,
    and beside it ``<name>-athena.onnx`` for one, as Athena wants it; returns the path of the
    latter.

    Parameters
    ----------
    network : CloudNetwork
        See `athena_model`.
    data : CloudData
        The first of these are the reference clouds.
    path : path
        Ending in .onnx.

    Raises
    ------
    ConfigError
        See `athena_model`.
    ValidationError
        If the file does not compute what the network does.
    """
    rows = np.arange(min(N_REFERENCE, data.clouds.n_clouds))
    export_onnx(
        athena_model(network),
        path,
        inputs={"points": write_points(data.clouds, rows, ATHENA_POINTS, layout="athena")},
        kind="athena-eoverp",
        training={**asdict(network.config), "best_epoch": network.result.best_epoch},
        normalisation=f"points: {', '.join(ATHENA_FEATURES)}, see pfcalib.features.clouds",
    )
    one = onnx.load(path)
    for tensor in (*one.graph.input, *one.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.checker.check_model(one)
    target = path.with_name(f"{path.stem}-athena.onnx")
    with new_file(target) as temporary:
        onnx.save(one, temporary)
    return target
