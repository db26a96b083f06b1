"""Flow matching in two steps: from noise to the energies of layers, and from noise to voxels given
these (arXiv:2210.02747; two steps as in arXiv:2106.05285).

Both steps work on normal scores, whose distribution at each energy is a standard Gaussian for each
quantity alone: what the network has to learn is how they depend on each other. It gives the
velocity at a point x_t = (1 - t) noise + t scores, whose mean is scores - noise; a shower follows
it from t = 0 to 1 by the midpoint rule. The file of each step holds all of its time steps.
"""

from __future__ import annotations

import functools
import os
import shutil
import zipfile
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
    compose,
    depths,
    draw_empty,
    layer_energies,
    shares_in_layers,
    turns,
)
from pfcalib.fastsim.voxels import Voxels, write_binning
from pfcalib.samples.layouts.calochallenge import Binning, read_binning
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
NOISE, POINT, TIME, CONDITION, OUTPUT = "noise", "point", "time", "condition", "scores"
STEPS = ("layers", "voxels")
_TABLES, _BINNING = "tables.npz", "binning.xml"
N_WAVES = 8  # of the time
N_REFERENCE = 200  # showers that check an export
N_COPIES = 4  # of each shower, turned, from which the distributions of shares are taken
BATCH = 1000  # showers at once


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Networks of both steps and their training.

    Parameters
    ----------
    widths : (int, int)
        Of the network of layers and that of voxels.
    n_blocks : int
        Of two layers each.
    n_steps : (int, int)
        Of time, each with two calls of the network.
    turn : bool
        Turn showers about their axis at random in training.
    threshold : float, GeV
        Below it a voxel is empty.
    train : TrainConfig
    """

    widths: tuple[int, int] = (128, 512)
    n_blocks: int = 3
    n_steps: tuple[int, int] = (8, 8)
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
    """Trained networks of both steps."""

    binning: Binning
    threshold: float  # GeV, below it a voxel is empty
    of_layers: NormalScores
    of_voxels: NormalScores
    files: dict[str, Path]  # ONNX, by step
    kept: dict[str, Kept] = field(default_factory=dict)  # by step; of stored ones there are none

    def inputs(
        self, energy: F64, layer_scores: F64 | None, rng: np.random.Generator
    ) -> dict[str, F32]:
        """Inputs of the file of a step: of that of the layers without their scores."""
        tables = self.of_layers if layer_scores is None else self.of_voxels
        noise = rng.standard_normal((len(energy), tables.empty.shape[1]))
        return {NOISE: noise.astype(np.float32), CONDITION: condition_of(energy, layer_scores)}

    @functools.cached_property
    def _sessions(self) -> list[Any]:
        return [open_session(self.files[step]) for step in STEPS]

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted, parts = np.asarray(energy, dtype=np.float64), []
        known = np.clip(wanted, *np.exp(self.of_layers.log_energy[[0, -1]]))
        for start in range(0, len(known), BATCH):
            some, scores = known[start : start + BATCH], None
            values = []
            for session, tables in zip(
                self._sessions, (self.of_layers, self.of_voxels), strict=True
            ):
                feed = self.inputs(some, scores, rng)
                scores = session.run([OUTPUT], feed)[0]
                values.append(tables.inverse(some, scores))
            (depth, _), (shares, above) = values
            layers_ = layer_energies(some, depth)
            parts.append(compose(self.binning, layers_, shares, above, threshold=self.threshold))
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
            for step, tables in zip(STEPS, (self.of_layers, self.of_voxels), strict=True)
            for name, value in tables._asdict().items()
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
            of_layers, of_voxels = (
                NormalScores(
                    file[f"{step}_log_energy"],
                    file[f"{step}_empty"],
                    file[f"{step}_logs"],
                    int(file[f"{step}_n_roots"]),
                )
                for step in STEPS
            )
            threshold = float(file["threshold"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadFileError(f"{path}: no tables of scores ({error})") from error
    if of_voxels.empty.shape[1] != binning.n_voxels:
        raise BadFileError(
            f"{path}: tables of {of_voxels.empty.shape[1]} voxels, the binning has "
            f"{binning.n_voxels}"
        )
    files = {step: folder / f"{step}.onnx" for step in STEPS}
    for file in files.values():
        require_parity(check_stored_model(file))
    return Flow(binning, threshold, of_layers, of_voxels, files)


def condition_of(energy: F64, layer_scores: NDArray[np.floating] | None = None) -> F32:
    """Logarithm of the energy, of about unit size, and the scores of the layers."""
    log = np.log(energy / 8.0)[:, None] / 2.0
    columns = [log] if layer_scores is None else [log, layer_scores]
    return np.concatenate(columns, axis=1).astype(np.float32)


def fit_flow(
    training: Voxels, held_out: Voxels, config: FlowConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Flow:  # fmt: skip
    """Train both networks and export them, or find them.

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
    orders = turns(training.binning) if config.turn else None
    many = augmented(training, rng, N_COPIES if config.turn else 1)
    of_layers = NormalScores.fit(training.energy, depths(training), n_roots=1)
    of_voxels = NormalScores.fit(many.energy, shares_in_layers(many))
    kept: dict[str, Kept] = {}
    for i, (step, tables) in enumerate(zip(STEPS, (of_layers, of_voxels), strict=True)):
        data, reference = [], None
        for k, part in enumerate((training, held_out)):
            of_depth = depths(part)
            values = shares_in_layers(part) if i else of_depth
            drawn, _ = of_layers.forward(part.energy, of_depth, rng)
            scores, empty = tables.forward(part.energy, values, rng)
            condition = condition_of(part.energy, drawn if i else None)
            data.append(
                FlowBatches(
                    np.where(values > 0.0, scores, np.nan), empty, condition,
                    batch_size=config.train.batch_size, seed=config.train.seed,
                    turns=orders if i else None, fixed=bool(k),
                )
            )  # fmt: skip
            n = min(N_REFERENCE, len(condition))
            noise = rng.standard_normal((n, scores.shape[1])).astype(np.float32)
            reference = {NOISE: noise, CONDITION: condition[:n]}
        told = {
            "inputs": reference, "kind": "noise",
            "normalisation": f"{NOISE}: standard Gaussian; {CONDITION}: ln(energy / 8 GeV) / 2, "
            f"scores of total and layers; {OUTPUT}: normal scores",
        }  # fmt: skip
        sizes = tables.empty.shape[1], data[0].condition.shape[1]
        kept[step] = fit_kept(
            f"flow_{step}_{training.binning.pdg_id}",
            functools.partial(build_velocity, *sizes, config.widths[i], config.n_blocks),
            (data[0], data[1]), config.train,
            settings={"config": asdict(config), "inputs": inputs},
            export=functools.partial(_sampler, config.n_steps[i], told), say=say,
        )  # fmt: skip
    files = {step: one.path for step, one in kept.items()}
    return Flow(training.binning, config.threshold, of_layers, of_voxels, files, kept)


def _sampler(n_steps: int, told: dict[str, Any], velocity: keras.Model) -> dict[str, Any]:
    return {**told, "model": build_sampler(velocity, n_steps)}
