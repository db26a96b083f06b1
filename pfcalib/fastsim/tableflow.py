"""Flow matching for tables of quantities of any kind, given what is known of each row: the networks
of `flowmatching` on normal scores.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import QuantileTransformer

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.flowmatching import (
    CONDITION,
    NOISE,
    OUTPUT,
    FlowBatches,
    fit_sampler,
)
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
N_QUANTILES = 2000
BATCH = 10_000  # rows at once


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
    kept = fit_sampler(
        name, (batches[0], batches[1]), config.train, width=config.width,
        n_blocks=config.n_blocks, n_steps=config.n_steps, condition="mean 0 and width 1",
        settings={"config": asdict(config), "inputs": inputs}, say=say,
    )  # fmt: skip
    return TableFlow(scaled, kept)
