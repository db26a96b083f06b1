"""Training of networks whose slopes are bounded: classifiers and regressions on a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.models.lipschitz import SCORE, Piecewise, build_lipschitz
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUT = "inputs"
N_REFERENCE = 500  # rows that check an export

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RobustConfig:
    """A network of `models.lipschitz` and its training.

    Parameters
    ----------
    widths : tuple of int
        Of the hidden layers; even.
    limit : float, optional
        Of the slope; without it the layers are free.
    rising : tuple of int
        Inputs in which the output never falls.
    train : TrainConfig
        Its loss tells a classifier ("crossentropy") from a regression.
    """

    widths: tuple[int, ...] = (64, 64)
    limit: float | None = None
    rising: tuple[int, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)


class Rows(NamedTuple):
    """What is learnt from, or stopped by."""

    table: F32  # (n, n_inputs)
    target: NDArray[Any]  # (n,) class 0 or 1, or a number
    weight: F64 | None = None  # (n,)


class RobustNetwork(NamedTuple):
    """A trained network."""

    config: RobustConfig
    kept: Kept
    scorer: Any  # keras.Model of the score
    mean: F64  # (n_inputs,)
    scale: F64  # (n_inputs,)

    @property
    def best_loss(self) -> float:
        """Lowest loss on the validation split."""
        return float(self.kept.result.history["val_loss"][self.kept.result.best_epoch])

    @property
    def exact(self) -> Piecewise:
        """The function that is certified, of scaled inputs."""
        return Piecewise.of(self.scorer)

    def scaled(self, table: F32) -> F64:
        """Inputs in the units of the certificate, (n, n_inputs)."""
        return (np.asarray(table, np.float64) - self.mean) / self.scale

    def score(self, table: F32) -> F64:
        """Log odds of class 1, or what the regression says, (n,)."""
        found = predict(self.scorer, {INPUT: np.asarray(table, np.float32)}, batch=50_000)
        return found[:, 0].astype(np.float64)


def fit_robust(
    training: Rows, held_out: Rows, config: RobustConfig, *, inputs: str, names: Sequence[str],
    scale: Sequence[float] | None = None, export: bool = True, name: str = "robust",
    say: Say = print,
) -> RobustNetwork:  # fmt: skip
    """Train a network, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : Rows
    config : RobustConfig
    inputs : str
        What the rows are: part of the key of the cache.
    names : sequence of str
        Of the inputs, for the contract.
    scale : sequence of float, optional
        In whose units the slope is limited; by default the widths of the inputs.
    export : bool
        Without it there is no ONNX file.
    name : str
        Of the file.
    say : callable
        Takes one line an epoch.
    """
    table = training.table.astype(np.float64)
    mean = table.mean(axis=0)
    unit = table.std(axis=0) if scale is None else np.asarray(scale, np.float64)
    classify = config.train.loss == "crossentropy"

    def build() -> keras.Model:
        scorer = build_lipschitz(
            list(mean), list(unit), widths=config.widths, limit=config.limit, rising=config.rising,
            name=name, input_name=INPUT,
        )  # fmt: skip
        if not classify:
            return scorer
        score = scorer.output
        both = [layers.Rescaling(-1.0, name="against")(score), score]
        joined = layers.Concatenate(name="both")(both)
        # the odds of a pair of -f / 2 and f / 2
        odds = layers.Softmax(name="probabilities")(layers.Rescaling(0.5, name="half")(joined))
        return keras.Model(scorer.inputs, odds, name=name)

    def arrays(rows: Rows) -> tuple[Any, ...]:
        target = np.asarray(rows.target)
        answer = np.eye(2)[target.astype(int)] if classify else target[:, None]
        data = ({INPUT: rows.table.astype(np.float32)}, answer.astype(np.float32))
        return data if rows.weight is None else (*data, rows.weight.astype(np.float32))

    def told(model: keras.Model) -> Mapping[str, Any]:
        return {
            "model": _scorer(model), "inputs": {INPUT: held_out.table[:N_REFERENCE]},
            "kind": "table", "normalisation": f"{INPUT}: {', '.join(names)}",
        }  # fmt: skip

    kept = fit_kept(
        name, build, (arrays(training), arrays(held_out)), config.train,
        settings={"config": asdict(config), "inputs": inputs, "scale": unit.tolist()},
        export=told if export else None, say=say,
    )  # fmt: skip
    return RobustNetwork(config, kept, _scorer(kept.model), mean, unit)


def _scorer(model: keras.Model) -> keras.Model:
    return keras.Model(model.inputs, model.get_layer(SCORE).output, name=model.name)
