"""Flow matching for tables of quantities of any kind, given what is known of each row: the networks
of `flowmatching` on normal scores.

Where quantities are known to a small part of their spread over all rows, a network for the mean and
the width of each score goes before (`Located`); flows and other generators then have to make
residuals of about unit width only.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from sklearn.preprocessing import QuantileTransformer

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.flowmatching import (
    CONDITION,
    NOISE,
    OUTPUT,
    FlowBatches,
    build_sampler,
    build_velocity,
)
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
N_REFERENCE = 200  # rows that check an export
N_QUANTILES = 2000
BATCH = 10_000  # rows at once
ABOUT, LEAST = "located", 0.01  # smallest width of a score


@dataclass(frozen=True, kw_only=True)
class TableFlowConfig:
    """Network and training.

    Parameters
    ----------
    width, n_blocks : int
        As of `flowmatching.build_velocity`.
    n_steps : int
        Of time, each with two calls of the network.
    train : TrainConfig
    """

    width: int = 128
    n_blocks: int = 3
    n_steps: int = 8
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=1024, epochs=50, patience=50, schedule="cosine_steps",
            loss="mse", ema=0.999,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if min(self.width, self.n_blocks, self.n_steps) < 1:
            raise ConfigError(f"TableFlowConfig: expected numbers above 0, got {self}")


class Scaled(NamedTuple):
    """A table and its conditions as networks see them: normal scores of each column of the table,
    conditions of mean 0 and width 1.
    """

    scores: QuantileTransformer
    mean: F64  # (n_conditions,)
    width: F64

    @classmethod
    def fit(cls, table: F64, condition: F64) -> Scaled:
        scores = QuantileTransformer(
            n_quantiles=min(N_QUANTILES, len(table)), output_distribution="normal", subsample=None
        ).fit(table)
        return cls(scores, condition.mean(axis=0), condition.std(axis=0) + 1e-9)

    def condition(self, values: F64) -> F32:
        return ((values - self.mean) / self.width).astype(np.float32)


@keras.saving.register_keras_serializable(package="pfcalib")
class Misfit(layers.Layer):
    """Negative logarithm of the density of a Gaussian, (n, 1), up to a constant with which it is
    not below 0; its width is LEAST and a positive function of what comes in.
    """

    def call(self, scores: Any, mean: Any, raw: Any) -> Any:
        width = LEAST + ops.softplus(raw)
        terms = 0.5 * ((scores - mean) / width) ** 2 + ops.log(width / LEAST)
        return ops.sum(terms, axis=1, keepdims=True)


class Located(NamedTuple):
    """A network for mean and width of the normal scores of each quantity."""

    scaled: Scaled
    kept: Kept

    def _about(self, condition: F64) -> tuple[F64, F64]:
        session = open_session(self.kept.path)
        found = np.concatenate(
            [
                session.run([ABOUT], {CONDITION: self.scaled.condition(condition[i : i + BATCH])})[
                    0
                ]
                for i in range(0, len(condition), BATCH)
            ]
        ).astype(np.float64)
        mean, raw = np.split(found, 2, axis=1)
        return mean, LEAST + np.logaddexp(0.0, raw)

    def residuals(self, table: F64, condition: F64) -> F64:
        """Scores less their means, over their widths, (n, n_columns)."""
        mean, width = self._about(condition)
        return np.asarray((self.scaled.scores.transform(table) - mean) / width)

    def table(self, residuals: F64, condition: F64) -> F64:
        """Quantities from residuals, (n, n_columns)."""
        mean, width = self._about(condition)
        return np.asarray(self.scaled.scores.inverse_transform(mean + width * residuals))


def build_located(n_columns: int, n_conditions: int, width: int) -> keras.Model:
    """Untrained network: inputs "scores" and "condition", output that of `Misfit`; its layer
    "about" gives means and what widths are made of, (n, 2 n_columns), from the condition.
    """
    given = keras.Input((n_conditions,), name=CONDITION)
    x = given
    for i in range(3):
        x = layers.Dense(width, activation="swish", name=f"dense{i}")(x)
    about = keras.Model(
        {CONDITION: given}, layers.Dense(2 * n_columns, name=ABOUT)(x), name="about"
    )
    scores, condition = (
        keras.Input((n,), name=name) for n, name in ((n_columns, OUTPUT), (n_conditions, CONDITION))
    )
    mean, raw = ops.split(about({CONDITION: condition}), 2, axis=1)
    return keras.Model(
        {OUTPUT: scores, CONDITION: condition}, Misfit(name="misfit")(scores, mean, raw)
    )


def fit_located(
    training: tuple[F64, F64], held_out: tuple[F64, F64], width: int, train: TrainConfig, *,
    name: str, inputs: str, say: Say = print,
) -> Located:  # fmt: skip
    """Train such a network and export it, or find it.

    Parameters
    ----------
    training, held_out, name, inputs, say
        As of `fit_table_flow`.
    width : int
        Of its three layers.
    train : TrainConfig
        With the loss "mae".
    """
    scaled = Scaled.fit(*training)
    data = []
    for table, condition in (training, held_out):
        seen = {
            OUTPUT: scaled.scores.transform(table).astype(np.float32),
            CONDITION: scaled.condition(condition),
        }
        data.append((seen, np.zeros((len(table), 1), np.float32)))
    told = {
        "inputs": {CONDITION: data[1][0][CONDITION][:N_REFERENCE]}, "kind": "condition",
        "normalisation": f"{CONDITION}: mean 0 and width 1; {ABOUT}: means of normal scores, and "
        "what widths are made of",
    }  # fmt: skip
    sizes = training[0].shape[1], training[1].shape[1]
    kept = fit_kept(
        name, functools.partial(build_located, *sizes, width), (data[0], data[1]), train,
        settings={"width": width, "inputs": inputs},
        export=lambda model: {**told, "model": model.get_layer("about")}, say=say,
    )  # fmt: skip
    return Located(scaled, kept)


class TableFlow(NamedTuple):
    """A trained flow."""

    scaled: Scaled
    kept: Kept

    def inputs(self, condition: F64, rng: np.random.Generator) -> dict[str, F32]:
        """Inputs of its file."""
        shape = (len(condition), self.scaled.scores.n_features_in_)
        return {
            NOISE: rng.standard_normal(shape).astype(np.float32),
            CONDITION: self.scaled.condition(condition),
        }

    def generate(self, condition: F64, rng: np.random.Generator) -> F64:
        """A row for each row of conditions, (n, n_columns)."""
        session, feed = open_session(self.kept.path), self.inputs(condition, rng)
        parts = [
            session.run([OUTPUT], {k: x[i : i + BATCH] for k, x in feed.items()})[0]
            for i in range(0, len(condition), BATCH)
        ]
        return np.asarray(self.scaled.scores.inverse_transform(np.concatenate(parts)))


def fit_table_flow(
    training: tuple[F64, F64], held_out: tuple[F64, F64], config: TableFlowConfig | None = None, *,
    name: str, inputs: str, say: Say = print,
) -> TableFlow:  # fmt: skip
    """Train a flow and export it, or find it.

    Parameters
    ----------
    training, held_out : (table, condition)
        Shapes (n, n_columns) and (n, n_conditions).
    config : TableFlowConfig, optional
    name : str
        Of the file.
    inputs : str
        What the tables are: part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    config = config or TableFlowConfig()
    scaled = Scaled.fit(*training)
    batches = []
    for k, (table, condition) in enumerate((training, held_out)):
        scores = scaled.scores.transform(table)
        batches.append(
            FlowBatches(
                scores, np.zeros_like(scores), scaled.condition(condition),
                batch_size=config.train.batch_size, seed=config.train.seed, fixed=bool(k),
            )
        )  # fmt: skip
    n_columns, n_conditions = training[0].shape[1], training[1].shape[1]
    n = min(N_REFERENCE, len(held_out[0]))
    noise = np.random.default_rng(config.train.seed).standard_normal((n, n_columns))
    told = {
        "inputs": {NOISE: noise.astype(np.float32), CONDITION: batches[1].condition[:n]},
        "kind": "noise",
        "normalisation": f"{NOISE}: standard Gaussian; {CONDITION}: mean 0 and width 1; {OUTPUT}: "
        "normal scores",
    }
    kept = fit_kept(
        name,
        functools.partial(build_velocity, n_columns, n_conditions, config.width, config.n_blocks),
        (batches[0], batches[1]), config.train,
        settings={"config": asdict(config), "inputs": inputs},
        export=functools.partial(_sampler, config.n_steps, told), say=say,
    )  # fmt: skip
    return TableFlow(scaled, kept)


def _sampler(n_steps: int, told: dict[str, Any], velocity: keras.Model) -> dict[str, Any]:
    return {**told, "model": build_sampler(velocity, n_steps)}
