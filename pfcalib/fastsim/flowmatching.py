"""Flow matching in steps: from noise to the energies of layers, from noise to those of rings given
layers, and from noise to voxels given both (arXiv:2210.02747; steps as in arXiv:2106.05285).

Profiles are in the rings, of which there are few, so they are learnt from few showers; the energy
of voxels is then normalised in each ring. Layers have their own energies, not their shares, since
what a particle loses by ionisation does not go with the energy of its shower.

All steps work on normal scores, whose distribution at each energy is a standard Gaussian for each
quantity alone: what the network has to learn is how they depend on each other. It gives the
velocity at a point x_t = (1 - t) noise + t scores, whose mean is scores - noise; a shower follows
it from t = 0 to 1 by the midpoint rule. The file of each step holds all of its time steps.
"""

from __future__ import annotations

import functools
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import new_file
from pfcalib.deploy.contract import contract_path, reference_path
from pfcalib.deploy.validator import check_stored_model, open_session, require_parity
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.fastsim.noisybatches import NoisyBatches
from pfcalib.fastsim.scores import (
    NormalScores,
    augmented,
    balanced,
    compose,
    draw_empty,
    rings_in_layers,
    shares_in_layers,
    total_and_layers,
    turns,
)
from pfcalib.fastsim.voxels import Voxels, layer_of_rings, ring_of, write_binning
from pfcalib.samples.layouts.calochallenge import Binning, read_binning
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
NOISE, POINT, TIME, CONDITION, OUTPUT = "noise", "point", "time", "condition", "scores"
STEPS: dict[str, Callable[[Voxels], F64]] = {
    "layers": total_and_layers, "rings": rings_in_layers, "voxels": shares_in_layers,
}  # fmt: skip
_TABLES, _BINNING = "tables.npz", "binning.xml"
N_WAVES = 8  # of the time
N_REFERENCE = 200  # showers that check an export
N_COPIES = 4  # of each shower, turned, from which the distributions of shares are taken
BATCH = 1000  # showers at once


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Networks of all steps and their training.

    Parameters
    ----------
    widths : (int, int, int)
        Of the networks of layers, rings and voxels.
    n_blocks : int
        Of two layers each.
    n_steps : (int, int, int)
        Of time, each with two calls of the network.
    turn : bool
        Turn showers about their axis at random in training.
    threshold : float, GeV
        Below it a voxel is empty.
    train : TrainConfig
    """

    widths: tuple[int, ...] = (128, 256, 512)
    n_blocks: int = 3
    n_steps: tuple[int, ...] = (8, 8, 8)
    turn: bool = True
    threshold: float = 1e-4
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=256, epochs=100, patience=100, schedule="cosine_steps",
            loss="mse", ema=0.999,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if min(*self.widths, self.n_blocks, *self.n_steps) < 1:
            raise ConfigError(f"FlowConfig: expected numbers above 0, got {self}")
        if not len(self.widths) == len(self.n_steps) == len(STEPS):
            raise ConfigError(
                f"FlowConfig: expected widths and n_steps of {', '.join(STEPS)}, got {self}"
            )


class FlowBatches(NoisyBatches):
    """Batches of points between noise and scores, and the velocities there; drawn anew in each
    epoch, the same ones for the same seed.

    Parameters
    ----------
    scores : ndarray, shape (n, d)
        NaN where the quantity is 0.
    empty : ndarray, shape (n, d)
        Probability of 0.
    condition : ndarray, shape (n, n_conditions)
    batch_size, seed : int
    turns : ndarray of int, shape (n_turns, d), optional
        Orders of the scores, one of which is taken at random for each shower.
    fixed : bool
        All epochs are the first one, for validation.
    """

    def __init__(
        self, scores: F64, empty: F64, condition: F32, *, batch_size: int, seed: int,
        turns: NDArray[np.int64] | None = None, fixed: bool = False,
    ) -> None:  # fmt: skip
        self.scores, self.empty, self.condition = scores, empty, condition
        self.turns = turns
        super().__init__(len(scores), batch_size=batch_size, seed=seed, fixed=fixed)

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[dict[str, F32], F32]:  # fmt: skip
        scores, empty = self.scores[rows], self.empty[rows]
        if self.turns is not None:
            which = self.turns[rng.integers(len(self.turns), size=len(rows))]
            scores, empty = (np.take_along_axis(x, which, axis=1) for x in (scores, empty))
        end = draw_empty(scores, empty, rng)
        noise, time = rng.standard_normal(end.shape), rng.random((len(rows), 1))
        point = (1.0 - time) * noise + time * end
        inputs: dict[str, NDArray[Any]] = {
            POINT: point,
            TIME: time,
            CONDITION: self.condition[rows],
        }
        return {name: x.astype(np.float32) for name, x in inputs.items()}, (end - noise).astype(
            np.float32
        )


@keras.saving.register_keras_serializable(package="pfcalib")
class Waves(layers.Layer):
    """Sines and cosines of a time between 0 and 1, (n, 2 N_WAVES)."""

    def call(self, time: Any) -> Any:
        angle = time * (np.pi * 2.0 ** np.arange(-1.0, N_WAVES - 1.0)).astype(np.float32)[None, :]
        return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)


def build_velocity(n: int, n_conditions: int, width: int, n_blocks: int) -> keras.Model:
    """Untrained network: inputs "point" (n,), "time" (1,) and "condition" (n_conditions,); output
    the velocity (n,).
    """
    point, time, condition = (
        keras.Input((size,), name=name)
        for name, size in ((POINT, n), (TIME, 1), (CONDITION, n_conditions))
    )
    about = layers.Concatenate(name="about")([Waves(name="waves")(time), condition])
    x = layers.Dense(width, name="first")(layers.Concatenate(name="all")([point, about]))
    for i in range(n_blocks):
        y = layers.Concatenate(name=f"with{i}")(
            [layers.LayerNormalization(name=f"norm{i}")(x), about]
        )
        y = layers.Dense(width, activation="swish", name=f"inner{i}")(y)
        x = layers.Add(name=f"add{i}")([x, layers.Dense(width, name=f"outer{i}")(y)])
    x = layers.LayerNormalization(name="norm")(x)
    velocity = layers.Dense(n, kernel_initializer="zeros", name="velocity")(x)
    return keras.Model({POINT: point, TIME: time, CONDITION: condition}, velocity, name="velocity")


@keras.saving.register_keras_serializable(package="pfcalib")
class Along(layers.Layer):
    """The point that a velocity leads to in a time."""

    def __init__(self, step: float, **options: Any) -> None:
        super().__init__(**options)
        self.step = step

    def call(self, point: Any, velocity: Any) -> Any:
        return point + self.step * velocity

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step": self.step}


@keras.saving.register_keras_serializable(package="pfcalib")
class Moment(layers.Layer):
    """One time for each row of what comes in, (n, 1)."""

    def __init__(self, time: float, **options: Any) -> None:
        super().__init__(**options)
        self.time = time

    def call(self, point: Any) -> Any:
        return 0.0 * point[:, :1] + self.time

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "time": self.time}


def build_sampler(velocity: keras.Model, n_steps: int) -> keras.Model:
    """Network that goes all the way by the midpoint rule: inputs "noise" and "condition", output
    "scores"; it shares the weights of the velocity.
    """
    shapes = {one.name: one.shape[1:] for one in velocity.inputs}
    noise = keras.Input(shapes[POINT], name=NOISE)
    condition = keras.Input(shapes[CONDITION], name=CONDITION)

    def speed(x: Any, time: float) -> Any:
        return velocity({POINT: x, TIME: Moment(time)(x), CONDITION: condition})

    x, step = noise, 1.0 / n_steps
    for k in range(n_steps):
        half = Along(0.5 * step)(x, speed(x, k * step))
        last = {"name": OUTPUT} if k == n_steps - 1 else {}
        x = Along(step, **last)(x, speed(half, (k + 0.5) * step))
    return keras.Model({NOISE: noise, CONDITION: condition}, x, name="sampler")


@dataclass(frozen=True)
class Flow:
    """Trained networks of all steps."""

    binning: Binning
    threshold: float  # GeV, below it a voxel is empty
    tables: dict[str, NormalScores]  # by step
    files: dict[str, Path]  # ONNX, by step
    kept: dict[str, Kept] = field(default_factory=dict)  # by step; of stored ones there are none

    def inputs(self, energy: F64, given: list[F64], rng: np.random.Generator) -> dict[str, F32]:
        """Inputs of the file of a step, from the scores of those before it."""
        n = list(self.tables.values())[len(given)].empty.shape[1]
        noise = rng.standard_normal((len(energy), n))
        return {NOISE: noise.astype(np.float32), CONDITION: condition_of(energy, *given)}

    @functools.cached_property
    def _sessions(self) -> list[Any]:
        return [open_session(self.files[step]) for step in STEPS]

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted, parts = np.asarray(energy, dtype=np.float64), []
        known = np.clip(wanted, *np.exp(self.tables["layers"].log_energy[[0, -1]]))
        groups = layer_of_rings(self.binning), ring_of(self.binning)
        for start in range(0, len(known), BATCH):
            some, scores = known[start : start + BATCH], list[F64]()
            for session in self._sessions:
                scores += session.run([OUTPUT], self.inputs(some, scores, rng))
            (depth, _), *others = (
                self.tables[step].inverse(some, x) for step, x in zip(STEPS, scores, strict=True)
            )
            energies = balanced(some, depth)
            for of, (shares, above) in zip(groups, others, strict=True):
                energies = compose(energies, of, shares, above, threshold=self.threshold)
            parts.append(energies)
        showers = np.concatenate(parts or [np.zeros((0, self.binning.n_voxels))])
        showers *= (wanted / known)[:, None]  # beyond the energies of the training
        return Voxels(self.binning, wanted, showers.astype(np.float32))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write all that makes showers into a folder, which `load_flow` reads: the networks with
        their contracts, tables of scores and, last, the binning.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for step, path in self.files.items():
            for of in (path, contract_path(path), reference_path(path)):
                with new_file(folder / of.name.replace(path.stem, step, 1)) as temporary:
                    shutil.copyfile(of, temporary)
        columns = {
            f"{step}_{name}": value
            for step, table in self.tables.items()
            for name, value in table._asdict().items()
        }
        with new_file(folder / _TABLES) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, threshold=self.threshold, **columns)
        write_binning(folder / _BINNING, self.binning)
        return folder


def load_flow(folder: str | os.PathLike[str]) -> Flow:
    """A flow from a folder of `Flow.save`.

    Raises
    ------
    BadFileError
        If a file is missing or broken.
    ValidationError
        If a network is not that of its contract.
    """
    folder = Path(folder)
    binning, path = read_binning(folder / _BINNING), folder / _TABLES
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            tables = {
                step: NormalScores(
                    file[f"{step}_log_energy"],
                    file[f"{step}_empty"],
                    file[f"{step}_logs"],
                    int(file[f"{step}_n_roots"]),
                )
                for step in STEPS
            }
            threshold = float(file["threshold"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadFileError(f"{path}: no tables of scores ({error})") from error
    n_voxels = tables["voxels"].empty.shape[1]
    if n_voxels != binning.n_voxels:
        raise BadFileError(
            f"{path}: tables of {n_voxels} voxels, the binning has {binning.n_voxels}"
        )
    files = {step: folder / f"{step}.onnx" for step in STEPS}
    for file in files.values():
        require_parity(check_stored_model(file))
    return Flow(binning, threshold, tables, files)


def condition_of(energy: F64, *scores: NDArray[np.floating]) -> F32:
    """Logarithm of the energy, of about unit size, and scores, (n, n_columns)."""
    return np.column_stack([np.log(energy / 8.0) / 2.0, *scores]).astype(np.float32)


def fit_flow(
    training: Voxels, held_out: Voxels, config: FlowConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Flow:  # fmt: skip
    """Train all networks and export them, or find them.

    Parameters
    ----------
    training, held_out : Voxels
        Of the same energies.
    config : FlowConfig, optional
    inputs : str
        What the showers are: part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    config = config or FlowConfig()
    rng = np.random.default_rng((config.train.seed, 1))
    many = augmented(training, rng, N_COPIES if config.turn else 1)
    tables, kept = {}, {}
    scores: tuple[list[F64], ...] = [], []  # of the steps before, of both samples
    for i, (step, values_of) in enumerate(STEPS.items()):
        last = step == "voxels"
        sample = many if last else training
        table = tables[step] = NormalScores.fit(
            sample.energy, values_of(sample), n_roots=int(step == "layers")
        )
        data = []
        for k, (part, before) in enumerate(zip((training, held_out), scores, strict=True)):
            values = values_of(part)
            drawn, empty = table.forward(part.energy, values, rng)
            data.append(
                FlowBatches(
                    np.where(values > 0.0, drawn, np.nan), empty,
                    condition_of(part.energy, *before), batch_size=config.train.batch_size,
                    seed=config.train.seed, fixed=bool(k),
                    turns=turns(training.binning) if last and config.turn else None,
                )
            )  # fmt: skip
            before.append(drawn)
        kept[step] = fit_sampler(
            f"flow_{step}_{training.binning.pdg_id}", (data[0], data[1]), config.train,
            width=config.widths[i], n_blocks=config.n_blocks, n_steps=config.n_steps[i],
            condition="ln(energy / 8 GeV) / 2, scores of the steps before",
            settings={"config": asdict(config), "inputs": inputs}, say=say,
        )  # fmt: skip
    files = {step: one.path for step, one in kept.items()}
    return Flow(training.binning, config.threshold, tables, files, kept)


def fit_sampler(
    name: str, data: tuple[FlowBatches, FlowBatches], train: TrainConfig, *, width: int,
    n_blocks: int, n_steps: int, condition: str, settings: dict[str, Any], say: Say,
) -> Kept:  # fmt: skip
    """Train the velocity of one step and export its sampler, or find it.

    Parameters
    ----------
    name : str
        Of the file.
    data : (FlowBatches, FlowBatches)
        Of training and validation.
    train : TrainConfig
    width, n_blocks, n_steps : int
        As of `build_velocity` and `build_sampler`.
    condition : str
        What the condition is, for the contract.
    settings, say
        As of `fit_kept`.
    """
    n, n_columns = min(N_REFERENCE, len(data[1].scores)), data[1].scores.shape[1]
    noise = np.random.default_rng(train.seed).standard_normal((n, n_columns)).astype(np.float32)
    told = {
        "inputs": {NOISE: noise, CONDITION: data[1].condition[:n]}, "kind": "noise",
        "normalisation": f"{NOISE}: standard Gaussian; {CONDITION}: {condition}; {OUTPUT}: normal "
        "scores",
    }  # fmt: skip
    return fit_kept(
        name,
        functools.partial(build_velocity, n_columns, data[0].condition.shape[1], width, n_blocks),
        data, train, settings=settings,
        export=lambda velocity: {**told, "model": build_sampler(velocity, n_steps)}, say=say,
    )  # fmt: skip
