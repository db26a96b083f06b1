"""Networks: trained on samples once, kept under a name that holds all they depend on, applied as
classifiers or calibrations, and exported.

A network lies in ``models/<name>-<key>`` beside its first sample; the key covers the content of the
samples, the settings and the versions of features and training, so whoever asks for the same
settings finds it there, and a change of any of these trains anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_key, locked
from pfcalib.deploy.export import NORMALISATION, export_onnx, predict
from pfcalib.deploy.validator import ParityReport
from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.inputs import INPUT_SHAPES, WITH_SIGNIFICANCE
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.uncertainty import mixture, mixture_quantiles
from pfcalib.models.blocks import adapt_bins
from pfcalib.models.families import MODEL_KINDS, PUBLISHED, build_model, copy_weights
from pfcalib.models.heads import HEADS, LEVELS, split_mixture
from pfcalib.samples.read import PathLike, as_paths
from pfcalib.samples.rootfile import content_id
from pfcalib.samples.select import Balance, SelectionConfig
from pfcalib.training.fit import Data, Say, TrainConfig, TrainResult, Watch, fit_model
from pfcalib.training.stream import ClusterStream, MixedStream

Paths = PathLike | Sequence[PathLike]

SCALARS = ("clusterE", "clusterEta")  # what the input "scalars" of a network holds
# the clusters of regressions (ATL-PHYS-PUB-2020-018)
SELECTION = SelectionConfig(min_cluster_e=0.1, min_deposit=0.2)
N_ADAPT = 20_000  # clusters that tell a network the scale of its inputs
LOWEST_ENERGY = 1e-3  # GeV; a linear scale can go below zero


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
        ``layer:EMB1`` gives the flat network the pixels of one layer, ``layers+significance`` the
        convolutional one a second channel.
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
        flat = [kind for kind, shapes in INPUT_SHAPES.items() if "pixels" in shapes]
        more = {"dnn": flat, "cnn": [WITH_SIGNIFICANCE]}.get(self.name, [])
        if self.inputs not in (MODEL_KINDS[self.name], *more):
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
    def with_moments(self) -> bool:
        """Whether the moments are an input."""
        default = self.name not in PUBLISHED
        return bool(self.options.get("with_moments", default))

    @property
    def balance(self) -> Balance:
        """Classes are matched in their deposit for a classifier; a regression takes all
        clusters.
        """
        return "subsample" if self.target is None else None

    @property
    def model_options(self) -> dict[str, Any]:
        """Options of `build_model`, with the number of pixels or channels that the inputs have."""
        shapes = INPUT_SHAPES[self.inputs]
        size = {"n_pixels": shapes["pixels"][0]} if self.name == "dnn" else {}
        if self.name == "cnn":
            size["n_channels"] = shapes["EMB1"][-1]
        return {**size, **self.options}


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
    paths: Paths,
    config: NetworkConfig,
    *,
    split: str,
    balance: Balance = _DEFAULT,
    select: SelectionConfig | None = None,
    shuffle: bool = False,
    batch_size: int = 1000,
    with_target: bool = True,
) -> ClusterStream:
    """Clusters of a sample as the network sees them; the seed of its training decides on balancing
    and order.

    Only a shuffled stream, which is one to train on, is augmented. Without the target of a
    regression the clusters need no truth.
    """
    return ClusterStream(
        paths,
        kind=config.inputs,
        split=split,
        shuffle=shuffle,
        batch_size=batch_size,
        seed=config.train.seed,
        balance=config.balance if balance is _DEFAULT else balance,
        select=select or config.select,
        target=config.target if with_target else None,
        scalars=SCALARS if config.options.get("with_scalars") else (),
        moments=config.with_moments,
        augment=config.augment if shuffle else None,
    )


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
    paths: Paths,
    config: NetworkConfig,
    *,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
) -> Path:
    """Where the trained network of samples lies, or will; arguments as in `fit_network`."""
    samples = as_paths(paths)
    key = cache_key(
        "features",
        "training",
        samples=[content_id(sample) for sample in samples],
        config={**asdict(config), "options": config.model_options, "kind": config.inputs},
        extras=[[content_id(extra.path), extra.share] for extra in extras],
        start=start.folder.name if start else None,
    )
    return Path(samples[0]).parent / "models" / f"{config.name}-{key}"


def fit_network(
    paths: Paths,
    config: NetworkConfig,
    *,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
    say: Say | None = None,
    watch: Watch | None = None,
    folder: Path | None = None,
) -> Network:
    """Train a network on the training split of samples, or take it from its folder; a training that
    was killed goes on.

    A second process that wants the same network waits for the first one.

    Parameters
    ----------
    paths : path-like or sequence of them
        ROOT samples with the same cells.
    config : NetworkConfig
    extras : sequence of Extra
        Further samples, with whatever cells; each batch holds a share of each. The validation loss
        is that on the other samples.
    start : Network, optional
        One with the same layers, whose weights are the first ones: fine-tuning.
    say : callable, optional
        Takes one line an epoch; printed by default.
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
    folder = folder or network_folder(paths, config, extras=extras, start=start)
    with locked(folder):
        training, held_out = _data(paths, config, extras)
        model = build_network(config, training)
        if start is not None:
            copy_weights(start.model, model)
        result = fit_model(
            model,
            training,
            held_out,
            config.train,
            out_dir=folder,
            say=say,
            watch=watch,
        )
    return Network(config, model, result, folder)


def fit_seeds(
    paths: Paths, config: NetworkConfig, seeds: Sequence[int], *, say: Say | None = None
) -> tuple[Network, ...]:
    """The same network trained once with each seed, which decides on first weights, order and
    balancing: their spread is the error of training. Found again as by `fit_network`.
    """
    trains = [replace(config.train, seed=seed) for seed in seeds]
    return tuple(fit_network(paths, replace(config, train=train), say=say) for train in trains)


def build_network(config: NetworkConfig, training: Data) -> Any:
    """Untrained network that knows the scale of its inputs, from some of its training clusters, of
    the first sample where there are several.
    """
    model = build_model(config.name, seed=config.train.seed, **config.model_options)
    if not isinstance(training, tuple):
        stream = training.streams[0] if isinstance(training, MixedStream) else training
        training = take_clusters(stream, N_ADAPT)
    adapt_bins(model, training[0])
    return model


def _data(paths: Paths, config: NetworkConfig, extras: Sequence[Extra]) -> tuple[Data, Data]:
    """Training and validation of a network."""
    batch = config.train.batch_size
    sizes = [max(round(batch * extra.share), 1) for extra in extras]
    first = batch - sum(sizes)
    training = open_stream(paths, config, split="train", shuffle=True, batch_size=first)
    validation = open_stream(paths, config, split="validation")
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


def apply_network(
    network: Network, stream: ClusterStream, *, n_draws: int | None = None
) -> NDArray[np.float32]:
    """Outputs of a network for the clusters of a stream that is not shuffled, shape (n_clusters,
    n_outputs); with `n_draws` those with Gaussian weights that are drawn so often anew for every
    cluster, (n_clusters, n_draws, n_outputs).
    """

    def outputs(inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        if n_draws is None:
            return predict(network.model, inputs)
        drawn = [predict(network.model, inputs, training=True) for _ in range(n_draws)]
        return np.stack(drawn, axis=1)

    return np.concatenate([outputs(stream[i][0]) for i in range(len(stream))])


def score_network(
    network: Network, paths: Paths, *, split: str, balance: Balance = "subsample"
) -> NDArray[np.float64]:
    """Probability of a neutral pion of each cluster, in the order of the files, (n_clusters,)."""
    stream = open_stream(paths, network.config, split=split, balance=balance)
    return apply_network(network, stream)[:, 1].astype(np.float64)


def network_energy(
    network: Network, paths: Paths, *, split: str, select: SelectionConfig = SELECTION
) -> NDArray[np.float64]:
    """Energies of a regression in the order of the files, GeV: the median of a distribution."""
    stream = open_stream(paths, network.config, split=split, select=select, with_target=False)
    output, cluster_e = apply_network(network, stream), stream.column("clusterE")
    return output_energy(network.config.head, network.config.target, output, cluster_e)


def output_energy(
    head: str, target: TargetConfig | None, output: NDArray[np.float32], cluster_e: NDArray[Any]
) -> NDArray[np.float64]:
    """Energies in GeV from the output (n_clusters, n_outputs) of a head and clusterE.

    Raises
    ------
    ConfigError
        If the network is a classifier.
    """
    if target is None:
        raise ConfigError(f"a network with head {head!r} gives no energy")
    if head in ("mixture", "members"):
        y = mixture_quantiles(mixture(*split_mixture(output)), [0.5])[:, 0]
    else:
        column = {"energy": 0, "quantiles": LEVELS.index(0.5), "class_and_energy": 2}[head]
        y = output[:, column].astype(np.float64)
    return np.maximum(target.decode(y, np.asarray(cluster_e, dtype=np.float64)), LOWEST_ENERGY)


def for_species(config: NetworkConfig, species: str) -> NetworkConfig:
    """The same network for the clusters of one species, ``all``, ``neutral`` or ``charged``."""
    return replace(config, select=replace(config.select or SELECTION, species=species))


def export_network(
    network: Network,
    paths: Paths,
    *,
    name: str | None = None,
    n_clusters: int = 1000,
    **more: Any,
) -> ParityReport:
    """Write a trained network as ONNX into its own folder, with contract and reference clusters of
    the validation split; validated.

    Parameters
    ----------
    network : Network
    paths : path-like or sequence of them
    name : str, optional
        Of the file, without ending; that of the network by default.
    n_clusters : int
        Reference clusters.
    **more : JSON values
        What else the contract shall tell of the training; `pfcalib.training.friend` reads
        ``inversion``.
    """
    config = network.config
    stream = open_stream(paths, config, split="validation", batch_size=n_clusters)
    training = {
        "seed": config.train.seed,
        "loss": config.train.loss,
        "best_epoch": network.result.best_epoch,
        "folder": network.folder.name,
        "head": config.head,
        "target": config.target and asdict(config.target),
        **more,
    }
    normalisation = NORMALISATION
    if config.target is not None:
        normalisation += f"; target: {config.target.scale} of the {config.target.truth} energy"
    return export_onnx(
        network.model,
        network.folder / f"{name or config.name}.onnx",
        inputs=take_clusters(stream, n_clusters)[0],
        kind=config.inputs,
        training=training,
        normalisation=normalisation,
    )
