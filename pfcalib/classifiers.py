"""The classifiers of a study: trained once, kept in a folder named by all that they depend on, and applied to any sample.

A network lies in ``models/<name>-<hash>`` beside its sample; the hash covers the sample, the settings and the code of features, models and
training, so another study with the same settings finds it there, and a change of any of these trains anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.likelihood import COLUMNS_READ, EmLikelihood
from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.features.moments import MOMENT_COLUMNS, moment_table
from pfcalib.models.registry import MODEL_KINDS, build_model
from pfcalib.models.trees import BoostedTrees
from pfcalib.samples.read import PathLike
from pfcalib.samples.select import Balance, balance_mask
from pfcalib.stream import ClusterStream
from pfcalib.train import Data, TrainConfig, TrainResult, fit_model

SCALARS = ("clusterE", "clusterEta")  # what the input "scalars" of a network holds
COLUMNS_KEPT = ("truthE", "truthPdgId", "clusterE", "clusterEta", "cluster_ENG_CALIB_TOT")
_CODE = ("features/*.py", "models/*.py", "samples/select.py", "samples/split.py", "stream.py", "train.py")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A network, its inputs and its training.

    Parameters
    ----------
    name : str
        Of `models.registry.MODEL_KINDS`.
    options : mapping
        Of the model's configuration; the published settings where nothing is said.
    kind : str, optional
        Inputs of `features.inputs.build_inputs`; by default those that the network is made for. ``layer:EMB1`` gives the flat network
        the pixels of one layer.
    n_clusters : int, optional
        Training clusters, drawn by chance; all by default.
    train : TrainConfig
        Its seed is that of the balancing and of the initial weights too.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    n_clusters: int | None = None
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.name not in MODEL_KINDS:
            raise ConfigError(f"unknown network {self.name!r}: expected one of {', '.join(MODEL_KINDS)}")
        if self.inputs not in INPUT_SHAPES or (self.kind and self.name != "dnn" and self.kind != MODEL_KINDS[self.name]):
            raise ConfigError(f"network {self.name!r} does not take inputs of kind {self.kind!r}")
        if self.n_clusters is not None and self.n_clusters < 1:
            raise ConfigError(f"n_clusters = {self.n_clusters}: expected above 0")

    @property
    def inputs(self) -> str:
        """Kind of inputs."""
        return self.kind or MODEL_KINDS[self.name]

    @property
    def model_options(self) -> dict[str, Any]:
        """Options of `build_model`, with the number of pixels that the inputs have."""
        n_pixels = {"n_pixels": INPUT_SHAPES[self.inputs]["pixels"][0]} if self.name == "dnn" else {}
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


class Scored(NamedTuple):
    """Clusters with the probability that each classifier gives them."""

    p_em: dict[str, NDArray[np.float64]]  # by classifier, (n_clusters,)
    is_em: NDArray[np.bool_]
    columns: dict[str, NDArray[Any]]  # COLUMNS_KEPT

    def select(self, chosen: NDArray[np.bool_]) -> Scored:
        """The clusters where `chosen` is true."""
        parts = ({name: values[chosen] for name, values in group.items()} for group in (self.p_em, self.columns))
        p_em, columns = parts
        return Scored(p_em, self.is_em[chosen], columns)

    def balanced(self, column: str, *, rng: np.random.Generator) -> Scored:
        """As many neutral as charged clusters in each bin of an energy in GeV, chosen by chance; see `samples.select.balance_mask`."""
        return self.select(balance_mask(self.columns[column], self.is_em, rng=rng))


def open_stream(
    path: PathLike, config: NetworkConfig, *, split: str, balance: Balance = "subsample", shuffle: bool = False, batch_size: int = 1000
) -> ClusterStream:
    """Clusters of a sample as the network sees them; the seed of its training decides on balancing and order."""
    scalars = SCALARS if config.options.get("with_scalars") else ()
    options: dict[str, Any] = {"split": split, "balance": balance, "shuffle": shuffle, "batch_size": batch_size, "seed": config.train.seed}
    return ClusterStream(path, kind=config.inputs, scalars=scalars, **options)


def take_clusters(stream: ClusterStream, n_clusters: int) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """The first clusters of a stream in its present order, as arrays (inputs, labels); fewer if it has fewer."""
    batches = [stream[i] for i in range(min(len(stream), -(-n_clusters // stream.batch_size)))]
    inputs = {name: np.concatenate([batch[0][name] for batch in batches])[:n_clusters] for name in batches[0][0]}
    return inputs, np.concatenate([batch[1] for batch in batches])[:n_clusters]


def network_folder(path: PathLike, config: NetworkConfig) -> Path:
    """Where the trained network of a sample lies, or will."""
    path = Path(path)
    package = Path(__file__).parent
    settings = {"sample": [path.name, path.stat().st_size], **asdict(config), "options": config.model_options, "kind": config.inputs}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for source in sorted(source for pattern in _CODE for source in package.glob(pattern)):
        digest.update(source.read_bytes())
    return path.parent / "models" / f"{config.name}-{digest.hexdigest()[:16]}"


def fit_network(path: PathLike, config: NetworkConfig, *, say: Callable[[str], None] | None = None) -> Network:
    """Train a network on the training split of a sample, or take it from its folder; a training that was killed goes on.

    A second process that wants the same network waits for the first one.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    config : NetworkConfig
    say : callable, optional
        Takes one line an epoch; silent by default.
    """
    folder = network_folder(path, config)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, also if the process dies
        training = open_stream(path, config, split="train", shuffle=True, batch_size=config.train.batch_size)
        validation = open_stream(path, config, split="validation")
        model = build_model(config.name, seed=config.train.seed, **config.model_options)
        data: Data = training
        held_out: Data = validation
        if config.n_clusters is not None:  # a small training has many epochs: its validation must not take longer than it does
            data, held_out = take_clusters(training, config.n_clusters), take_clusters(validation, max(config.n_clusters, 1000))
        result = fit_model(model, data, held_out, config.train, out_dir=folder, say=say or _say_nothing)
    return Network(config, model, result, folder)


def score_network(network: Network, path: PathLike, *, split: str, balance: Balance = "subsample") -> NDArray[np.float64]:
    """Probability of a neutral pion of each cluster, in the order of the file, shape (n_clusters,)."""
    stream = open_stream(path, network.config, split=split, balance=balance)
    return np.concatenate([predict(network.model, stream[i][0])[:, 1] for i in range(len(stream))]).astype(np.float64)


def read_columns(path: PathLike, *, split: str, balance: Balance = "subsample", seed: int) -> dict[str, NDArray[Any]]:
    """Scalars that likelihood, trees and evaluation need, of the same clusters in the same order as `score_network`."""
    stream = ClusterStream(path, kind="layer:TileBar2", split=split, balance=balance, shuffle=False, seed=seed)
    names = dict.fromkeys((*MOMENT_COLUMNS, *COLUMNS_READ, *COLUMNS_KEPT))
    return {**{name: stream.column(name) for name in names}, "is_em": stream.labels[:, 1] > 0.5}


def score_sample(
    path: PathLike, likelihood: EmLikelihood, trees: BoostedTrees, networks: Mapping[str, Network], *, split: str, balance: Balance, seed: int
) -> Scored:
    """All classifiers on the clusters of one split of a sample.

    Raises
    ------
    ConfigError
        If a network was trained with another seed, which balances the classes with other clusters.
    """
    for name, network in networks.items():
        if network.config.train.seed != seed:
            raise ConfigError(f"network {name!r} was trained with seed {network.config.train.seed}, not {seed}")
    columns = read_columns(path, split=split, balance=balance, seed=seed)
    p_em = {"likelihood": likelihood.p_em(columns), "gbdt": trees.p_em(moment_table(columns))}
    p_em |= {name: score_network(network, path, split=split, balance=balance) for name, network in networks.items()}
    return Scored(p_em, columns["is_em"], {name: columns[name] for name in COLUMNS_KEPT})


def _say_nothing(line: str) -> None:
    """Print no progress."""
