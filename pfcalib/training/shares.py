"""Networks that give the share of each cell that a track left, trained on the truth of events and
exported for `pfcalib.particleflow.learned`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, locked
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.errors import ConfigError
from pfcalib.models.cell_shares import SharesConfig, build_cell_shares
from pfcalib.particleflow.event import HARD_SCATTER, Event, MatchedSets
from pfcalib.particleflow.surroundings import (
    BUILDERS,
    INPUT_SHAPES,
    KIND,
    MEANINGS,
    N_SLOTS,
    true_shares,
)
from pfcalib.samples.split import SPLITS, split_of
from pfcalib.training.fit import ArrayBatches, Arrays, Say, TrainConfig, fit_model

FRACTIONS = (0.8, 0.1, 0.1)  # of the events, for training, validation and test
N_REFERENCE = 500  # sets that the export is validated on
EVERY = 500  # events a line of progress
PILE_UP_PART = 0.125  # of the tracks of other vertices that are drawn, and count for all of them


@dataclass(frozen=True, kw_only=True)
class SharesTraining:
    """A network and its training.

    Parameters
    ----------
    network : SharesConfig
    train : TrainConfig
        The loss "crossentropy" is that of shares; the seed is that of the choice of the sets too.
    max_sets : int
        Tracks in memory; where there are more, that many are drawn from all of them. One takes 4 kB
        as points and 11 kB as images.
    cone : float
        Cells within this dR of a track are its set, see `pfcalib.particleflow.match.match_cones`; 0
        for those of its matched clusters. The contract tells it to whoever uses the network.
    """

    network: SharesConfig = field(default_factory=SharesConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=2e-3, batch_size=128, epochs=20, schedule="cosine_steps", clip_norm=1.0
        )
    )
    max_sets: int = 100_000
    cone: float = 0.2

    def __post_init__(self) -> None:
        if self.train.loss != "crossentropy":
            raise ConfigError(
                f"SharesTraining: loss = {self.train.loss!r}, expected 'crossentropy'"
            )
        if self.max_sets < 1:
            raise ConfigError(f"SharesTraining: max_sets = {self.max_sets!r}, expected above 0")
        if not 0.0 <= self.cone < 1.0:
            raise ConfigError(f"SharesTraining: cone = {self.cone!r}, expected 0 to 1")


class DrawnSets:
    """Sets drawn from a stream of events in half precision, each with the same chance but for
    tracks of pile-up, of which a part stands for all.

    Parameters
    ----------
    form : str
        Of the network.
    size : int
        Sets that are kept at most.
    rng : numpy.random.Generator
    """

    def __init__(self, form: str, size: int, rng: np.random.Generator) -> None:
        slots = (N_SLOTS[form],)
        self.arrays: dict[str, NDArray[np.float16]] = {
            name: np.zeros((size, *shape), dtype=np.float16)
            for name, shape in {**INPUT_SHAPES[form], "share": slots, "energy": slots}.items()
        }
        self.form, self.size, self.rng, self.n_seen = form, size, rng, 0

    def __len__(self) -> int:
        return min(self.n_seen, self.size)

    def add(self, event: Event, cells: RingCells, sets: MatchedSets) -> None:
        """Look at the sets of an event (Vitter, ACM TOMS 11 (1985) 37, algorithm R)."""
        inputs, slot = BUILDERS[self.form](event, cells, sets)
        share, energy = build_targets(event, sets, slot, N_SLOTS[self.form])
        is_hard = event.tracks.vertex[sets.track] == HARD_SCATTER
        chance = np.where(is_hard, 1.0, PILE_UP_PART)
        drawn = np.flatnonzero(self.rng.random(len(chance)) < chance)
        energy /= chance[:, None]
        place = np.arange(self.n_seen, self.n_seen + len(drawn))
        late = place >= self.size
        place[late] = self.rng.integers(0, place[late] + 1)
        kept = place < self.size
        arrays: dict[str, NDArray[Any]] = {**inputs, "share": share, "energy": energy}
        for name, array in arrays.items():
            self.arrays[name][place[kept]] = array[drawn[kept]]
        self.n_seen += len(drawn)

    def take(self) -> Arrays:
        """Inputs, shares and energies in GeV of the sets that were drawn."""
        drawn = {name: array[: len(self)] for name, array in self.arrays.items()}
        share, energy = drawn.pop("share"), drawn.pop("energy")
        return drawn, share, energy


class SetBatches(ArrayBatches):
    """Batches of sets in single precision: inputs, shares of the track and of all else, weights."""

    def __init__(
        self, data: Arrays, *, scale: float, batch_size: int, seed: int, shuffle: bool
    ) -> None:
        super().__init__(data, batch_size=batch_size, seed=seed, shuffle=shuffle)
        self.scale = scale  # of the weights over energies

    def __getitem__(self, index: int) -> Arrays:
        inputs, share, energy = super().__getitem__(index)
        share = share.astype(np.float32)
        return (
            {name: array.astype(np.float32) for name, array in inputs.items()},
            np.stack([share, 1.0 - share], axis=-1),
            energy.astype(np.float32) * self.scale,
        )


def build_targets(
    event: Event, sets: MatchedSets, slot: NDArray[np.int64], n_slots: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a network is to learn of an event.

    Parameters
    ----------
    event : Event
        With truth.
    sets : MatchedSets
    slot : ndarray of int, shape (n_entries of the sets,)
        See `pfcalib.particleflow.surroundings.Surroundings`.
    n_slots : int

    Returns
    -------
    share, energy : ndarray of float64, shape (n_sets, n_slots)
        True share of the track, and sum of abs(E) in GeV; where several entries fall into one slot
        the mean of their shares weighted by abs(E).

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    owner = np.repeat(np.arange(len(sets.track)), np.diff(sets.offsets))
    kept = slot >= 0
    at, n = (owner * n_slots + slot)[kept], len(sets.track) * n_slots
    size = np.abs(event.clusters.cell_energy[sets.entry])[kept]
    energy = np.bincount(at, size, n).astype(np.float64)  # of no entries it counts integers
    left = np.bincount(at, size * true_shares(event, sets)[kept], n)
    share: NDArray[np.float64] = np.divide(left, energy, out=np.zeros(n), where=energy > 0.0)
    shape = (len(sets.track), n_slots)
    return share.reshape(shape), energy.reshape(shape)


def fit_shares(
    events: Iterable[tuple[Event, MatchedSets]],
    cells: RingCells,
    config: SharesTraining | None = None,
    *,
    inputs: str,
    folder: Path | None = None,
    say: Say = print,
) -> Path:
    """Train a network on the truth of events and export it, or find it; a training that was killed
    goes on.

    The loss is the cross-entropy with the true share of each cell, weighted by abs(E). Events are
    split by `samples.split.split_of` with FRACTIONS; those of the test split are left alone.

    Parameters
    ----------
    events : iterable of (Event, MatchedSets)
        With truth; not looked at where the network is found.
    cells : RingCells
        Of all of them.
    config : SharesTraining, optional
    inputs : str
        What the events are, such as a hash of their content: part of the key of the cache.
    folder : path, optional
        Where trainings are kept, each in a folder of its own; in the cache by default.
    say : callable
        Takes lines of progress.

    Returns
    -------
    path
        Of the ONNX file, validated, with its contract beside it.

    Raises
    ------
    ConfigError
        If there is no set for training or for validation.
    ValidationError
        If an event has no truth, or a number that is not finite.
    """
    config = config or SharesTraining()
    form, train = config.network.form, config.train
    key = cache_key("training", config=config, inputs=inputs, meaning=MEANINGS[form])
    path = (folder or cache_folder() / "models") / f"{KIND}{form}-{key}" / f"{KIND}{form}.onnx"
    with locked(path.parent):
        if contract_path(path).exists():  # it is written last
            return path
        training, held_out = _draw(events, cells, config, say)
        say(f"{len(training)} of {training.n_seen} sets to train on, {len(held_out)} to validate")
        (drawn, share, energy), (reference, *targets) = training.take(), held_out.take()
        options: Any = {
            "scale": np.float32(1.0 / energy.mean(dtype=np.float64)),
            "batch_size": train.batch_size,
            "seed": train.seed,
        }
        keras.utils.set_random_seed(train.seed)
        model = build_cell_shares(INPUT_SHAPES[form], config.network)
        result = fit_model(
            model,
            SetBatches((drawn, share, energy), shuffle=True, **options),
            SetBatches((reference, *targets), shuffle=False, **options),
            train,
            out_dir=path.parent,
            say=say,
        )
        export_onnx(
            model,
            path,
            inputs={name: x[:N_REFERENCE].astype(np.float32) for name, x in reference.items()},
            kind=f"{KIND}{form}",
            training={
                **asdict(config),
                "inputs": inputs,
                "n_sets": len(training),
                "best_epoch": result.best_epoch,
            },
            normalisation=MEANINGS[form],
        )
    return path


def _draw(
    events: Iterable[tuple[Event, MatchedSets]],
    cells: RingCells,
    config: SharesTraining,
    say: Say,
) -> list[DrawnSets]:
    """Sets to train on and to validate."""
    rng = np.random.default_rng(config.train.seed)
    sizes = (config.max_sets, max(config.max_sets // 8, 1))
    drawn = [DrawnSets(config.network.form, size, rng) for size in sizes]
    for i, (event, sets) in enumerate(events, start=1):
        split = int(split_of([event.number], fractions=FRACTIONS)[0])
        if split < len(drawn):
            drawn[split].add(event, cells, sets)
        if i % EVERY == 0:
            say(f"{i} events, {sum(of.n_seen for of in drawn)} sets")
    for name, of in zip(SPLITS, drawn, strict=False):
        if not len(of):
            raise ConfigError(f"no set of a track in the split {name}: more events are needed")
    return drawn
