"""Classifiers of candidates into several classes: a network and boosted trees on the same
quantities, trained with all classes equally common, chosen on the validation split.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from pfcalib.cache import cache_folder, cache_key, locked
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx, predict
from pfcalib.models.blocks import QuantileBins
from pfcalib.samples.split import SPLITS
from pfcalib.training.fit import Say, TrainConfig, TrainResult, fit_model

INPUT, OUTPUT = "candidates", "probabilities"
N_REFERENCE = 500  # candidates that check an export

FloatArray = NDArray[np.float64]


class Candidates(NamedTuple):
    """Candidates of all classes, in one split or several."""

    table: NDArray[np.float32]  # (n, n_features)
    label: NDArray[np.int64]  # (n,) class, from 0
    weight: FloatArray  # (n,) in units of the class, such as expected events
    split: NDArray[np.int8]  # (n,) as of samples.split

    def of(self, split: str) -> Candidates:
        """Those of one split."""
        rows = self.split == SPLITS.index(split)
        return Candidates(self.table[rows], self.label[rows], self.weight[rows], self.split[rows])

    @property
    def n_classes(self) -> int:
        return int(self.label.max()) + 1

    @property
    def balanced(self) -> FloatArray:
        """Weights with which all classes are equally common, of mean 1, (n,)."""
        total = np.bincount(self.label, self.weight, self.n_classes)
        return self.weight / total[self.label] * len(self.weight) / self.n_classes


@dataclass(frozen=True, kw_only=True)
class ClassNetworkConfig:
    """A fully connected network and its training.

    Parameters
    ----------
    widths : tuple of int
        Of the hidden layers, with swish.
    dropout : float
        After each.
    n_bins : int
        Quantile bins of each quantity; 0: quantities of mean 0 and width 1, better where densities
        are smooth.
    train : TrainConfig
        Its seed is that of the first weights too.
    """

    widths: tuple[int, ...] = (128, 128, 64)
    dropout: float = 0.1
    n_bins: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)


class ClassNetwork(NamedTuple):
    """A trained network."""

    config: ClassNetworkConfig
    model: Any  # keras.Model with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file

    @property
    def best_loss(self) -> float:
        """Lowest loss on the validation split."""
        return float(self.result.history["val_loss"][self.result.best_epoch])

    def probabilities(self, table: NDArray[np.float32]) -> FloatArray:
        """Of all classes, (n, n_classes)."""
        return predict(self.model, {INPUT: table}).astype(np.float64)


def build_class_network(n_features: int, n_classes: int, config: ClassNetworkConfig) -> keras.Model:
    """Untrained network: input "candidates" (n, n_features) float32 in physical units, which the
    layer "scale", to be adapted, brings to one scale; output "probabilities" (n, n_classes),
    softmax.
    """
    keras.utils.set_random_seed(config.train.seed)
    inputs = keras.Input((n_features,), name=INPUT, dtype="float32")
    scale = QuantileBins(config.n_bins, name="scale") if config.n_bins else None
    x = (scale or layers.Normalization(name="scale"))(inputs)
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="swish", name=f"dense{i}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout{i}")(x)
    output = layers.Dense(n_classes, activation="softmax", name=OUTPUT)(x)
    return keras.Model({INPUT: inputs}, output, name="class_network")


def fit_class_network(
    data: Candidates,
    config: ClassNetworkConfig,
    *,
    names: Sequence[str],
    classes: Sequence[str],
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> ClassNetwork:
    """Train a network on the training split and export it, or find it; a training that was killed
    goes on.

    Parameters
    ----------
    data : Candidates
    config : ClassNetworkConfig
    names, classes : sequence of str
        Of the features, with units, and of the classes, for the contract.
    inputs : str
        What the candidates are, such as a hash of their content: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    key = cache_key("training", config=asdict(config), inputs=inputs, names=list(names))
    path = cache_folder() / "models" / f"class_network-{key}" / "class_network.onnx"
    train, held_out = data.of("train"), data.of("validation")
    with locked(path.parent):
        model = build_class_network(train.table.shape[1], data.n_classes, config)
        model.get_layer("scale").adapt(train.table)
        result = fit_model(
            model, _arrays(train), _arrays(held_out), config.train, out_dir=path.parent, say=say
        )
        if export and not contract_path(path).exists():  # it is written last
            export_onnx(
                model,
                path,
                inputs={INPUT: held_out.table[:N_REFERENCE]},
                kind="candidates",
                training={**asdict(config), "inputs": inputs, "best_epoch": result.best_epoch},
                normalisation=f"{INPUT}: {', '.join(names)}; {OUTPUT}: {', '.join(classes)}, as "
                "if all were equally common",
            )
    return ClassNetwork(config, model, result, path)


def _arrays(data: Candidates) -> tuple[Any, ...]:
    answers = np.eye(data.n_classes, dtype=np.float32)[data.label]
    return {INPUT: data.table}, answers, data.balanced.astype(np.float32)


def fit_class_trees(
    data: Candidates, options: Mapping[str, Any], *, seed: int, patience: int = 20
) -> Any:
    """Boosted trees of all classes (scikit-learn), stopped on the validation split.

    Parameters
    ----------
    data : Candidates
    options : mapping
        Of `HistGradientBoostingClassifier`.
    seed : int
    patience : int
        Iterations without gain.
    """
    train, held_out = data.of("train"), data.of("validation")
    model = HistGradientBoostingClassifier(
        **options, early_stopping=True, n_iter_no_change=patience, tol=0.0, random_state=seed
    )
    return model.fit(
        train.table,
        train.label,
        sample_weight=train.balanced,
        X_val=held_out.table,
        y_val=held_out.label,
        sample_weight_val=held_out.balanced,
    )


def cross_entropy(p: FloatArray, data: Candidates) -> float:
    """Mean cross-entropy of probabilities (n, n_classes) with all classes equally common."""
    mine = p[np.arange(len(p)), data.label]
    return float(-np.average(np.log(np.maximum(mine, 1e-30)), weights=data.balanced))


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every choice of one value for each name.

    >>> combinations({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
