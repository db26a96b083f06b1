"""Networks of a study: trained on a sample once, kept under a name that holds all they depend on,
and applied to any sample.

A network lies in ``models/<name>-<key>`` beside its sample; the key covers the content of the
samples, the settings and the versions of features and training, so another study with the same
settings finds it there, and a change of any of these trains anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_key, locked
from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import MODEL_KINDS, build_model, copy_weights
from pfcalib.models.heads import HEADS
from pfcalib.samples.read import PathLike
from pfcalib.samples.rootfile import content_id
from pfcalib.samples.select import Balance, SelectionConfig
from pfcalib.training.fit import Data, TrainConfig, TrainResult, Watch, fit_model
from pfcalib.training.mixture import MixedStream
from pfcalib.training.stream import ClusterStream

SCALARS = ("clusterE", "clusterEta")  # what the input "scalars" of a network holds


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network, its inputs and its training.

    Parameters
    ----------
    name : str
        Of `models.families.MODEL_KINDS`.
    options : mapping
        Of the model's configuration, the head among them; the published settings where nothing is
        said.
    kind : str, optional
        Inputs of `features.inputs.build_inputs`; by default those that the network is made for.
        ``layer:EMB1`` gives the flat network the pixels of one layer.
    target : TargetConfig, optional
        Of a regression; without it the network is a classifier.
    select : SelectionConfig, optional
        Cuts on the clusters that it is trained on.
    augment : AugmentConfig, optional
        Random noise and cuts in training.
    n_clusters : int, optional
        Training clusters, drawn by chance; all by default.
    train : TrainConfig
        Its seed is that of the balancing and of the initial weights too.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    target: TargetConfig | None = None
    select: SelectionConfig | None = None
    augment: AugmentConfig | None = None
    n_clusters: int | None = None
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.name not in MODEL_KINDS:
            raise ConfigError(
                f"unknown network {self.name!r}: expected one of {', '.join(MODEL_KINDS)}"
            )
        if self.inputs not in INPUT_SHAPES or (
            self.kind and self.name != "dnn" and self.kind != MODEL_KINDS[self.name]
        ):
            raise ConfigError(f"network {self.name!r} does not take inputs of kind {self.kind!r}")
        if self.n_clusters is not None and self.n_clusters < 1:
            raise ConfigError(f"n_clusters = {self.n_clusters}: expected above 0")
        losses = HEADS.get(self.head, ("", ()))[1]
        if self.train.loss not in losses:
            raise ConfigError(
                f"head {self.head!r} goes with a loss among {', '.join(losses) or 'none'}, not "
                f"{self.train.loss!r}"
            )
        both = self.head == "class_and_energy"
        if (self.target is None) != (self.head == "classes") or (
            self.target is not None and self.target.with_class != both
        ):
            raise ConfigError(f"head {self.head!r} does not learn the target {self.target}")

    @property
    def head(self) -> str:
        """What the network ends in."""
        return str(self.options.get("head", "classes"))

    @property
    def inputs(self) -> str:
        """Kind of inputs."""
        return self.kind or MODEL_KINDS[self.name]

    @property
    def balance(self) -> Balance:
        """Classes are matched in their deposit for a classifier; a regression takes all
        clusters.
        """
        return "subsample" if self.target is None else None

    @property
    def model_options(self) -> dict[str, Any]:
        """Options of `build_model`, with the number of pixels that the inputs have."""
        n_pixels = (
            {"n_pixels": INPUT_SHAPES[self.inputs]["pixels"][0]} if self.name == "dnn" else {}
        )
        return {**n_pixels, **self.options}


class Network(NamedTuple):
    """A trained network."""

    config: NetworkConfig
    model: Any  # keras.Model with the weights of its best epoch
    result: TrainResult
    folder: Path  # of its checkpoint, history and model.keras

    @property
    def best_loss(self) -> float:
        """Lowest loss on the validation split."""
        return float(self.result.history["val_loss"][self.result.best_epoch])


class Extra(NamedTuple):
    """A further sample that a network is trained on."""

    path: Path
    share: float  # of each batch


_DEFAULT: Any = object()


def open_stream(
    path: PathLike,
    config: NetworkConfig,
    *,
    split: str,
    balance: Balance = _DEFAULT,
    select: SelectionConfig | None = None,
    shuffle: bool = False,
    batch_size: int = 1000,
) -> ClusterStream:
    """Clusters of a sample as the network sees them; the seed of its training decides on balancing
    and order.

    Only a shuffled stream, which is one to train on, is augmented.
    """
    options: dict[str, Any] = {
        "split": split,
        "shuffle": shuffle,
        "batch_size": batch_size,
        "seed": config.train.seed,
    }
    options |= {
        "balance": config.balance if balance is _DEFAULT else balance,
        "select": select or config.select,
        "target": config.target,
    }
    options |= {
        "scalars": SCALARS if config.options.get("with_scalars") else (),
        "augment": config.augment if shuffle else None,
    }
    return ClusterStream(path, kind=config.inputs, **options)


def take_clusters(stream: ClusterStream, n_clusters: int) -> tuple[Any, ...]:
    """The first clusters of a stream in its present order, as arrays (inputs, labels[, weights]);
    fewer if it has fewer.
    """
    batches = [stream[i] for i in range(min(len(stream), -(-n_clusters // stream.batch_size)))]
    inputs = {
        name: np.concatenate([batch[0][name] for batch in batches])[:n_clusters]
        for name in batches[0][0]
    }
    return inputs, *(
        np.concatenate([batch[i] for batch in batches])[:n_clusters]
        for i in range(1, len(batches[0]))
    )


def network_folder(
    path: PathLike,
    config: NetworkConfig,
    *,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
) -> Path:
    """Where the trained network of a sample lies, or will; the other arguments are those of
    `fit_network`.
    """
    settings: dict[str, Any] = {
        "sample": content_id(path),
        "config": {**asdict(config), "options": config.model_options, "kind": config.inputs},
    }
    settings |= (
        {"extras": [[content_id(extra.path), extra.share] for extra in extras]} if extras else {}
    )
    settings |= {"start": start.folder.name} if start else {}
    return (
        Path(path).parent
        / "models"
        / f"{config.name}-{cache_key('features', 'training', **settings)}"
    )


def fit_network(
    path: PathLike,
    config: NetworkConfig,
    *,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
    say: Callable[[str], None] | None = None,
    watch: Watch | None = None,
    folder: Path | None = None,
) -> Network:
    """Train a network on the training split of a sample, or take it from its folder; a training
    that was killed goes on.

    A second process that wants the same network waits for the first one.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    config : NetworkConfig
    extras : sequence of Extra
        Further samples, with whatever cells; each batch holds a share of each. The validation loss
        is that on the first sample.
    start : Network, optional
        One with the same layers, whose weights are the first ones: fine-tuning.
    say : callable, optional
        Takes one line an epoch; silent by default.
    watch : callable, optional
        See `training.fit.fit_model`.
    folder : path, optional
        In place of `network_folder`.

    Raises
    ------
    ConfigError
        If extras come with n_clusters, or their shares leave nothing to the first sample.
    """
    shares = [extra.share for extra in extras]
    if extras and (config.n_clusters is not None or not (min(shares) > 0.0 and sum(shares) < 1.0)):
        raise ConfigError(
            "extra samples go with all clusters of the first, and shares above 0 that sum to less "
            f"than 1, not {shares}"
        )
    folder = folder or network_folder(path, config, extras=extras, start=start)
    with locked(folder):
        model = build_model(config.name, seed=config.train.seed, **config.model_options)
        if start is not None:
            copy_weights(start.model, model)
        training, held_out = _data(path, config, extras)
        result = fit_model(
            model,
            training,
            held_out,
            config.train,
            out_dir=folder,
            say=say or _say_nothing,
            watch=watch,
        )
    return Network(config, model, result, folder)


def _data(path: PathLike, config: NetworkConfig, extras: Sequence[Extra]) -> tuple[Data, Data]:
    """Training and validation of a network."""
    batch = config.train.batch_size
    sizes = [max(round(batch * extra.share), 1) for extra in extras]
    training = open_stream(path, config, split="train", shuffle=True, batch_size=batch - sum(sizes))
    validation = open_stream(path, config, split="validation")
    # a small training has many epochs: its validation must not take longer than it does
    if config.n_clusters is not None:
        return take_clusters(training, config.n_clusters), take_clusters(
            validation, max(config.n_clusters, 1000)
        )
    if not extras:
        return training, validation
    others = [
        open_stream(extra.path, config, split="train", shuffle=True, batch_size=size)
        for extra, size in zip(extras, sizes, strict=True)
    ]
    return MixedStream([training, *others]), validation


def apply_network(network: Network, stream: ClusterStream) -> NDArray[np.float32]:
    """Outputs of a network for the clusters of a stream that is not shuffled, shape (n_clusters,
    n_outputs).
    """
    return np.concatenate([predict(network.model, stream[i][0]) for i in range(len(stream))])


def _say_nothing(line: str) -> None:
    """Print no progress."""
