"""Training of one network for particle flow on windows of elements, exported for
`pfcalib.particleflow.one_network`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, file_sha256, locked
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.errors import ConfigError
from pfcalib.features.windows import (
    ELEMENT_COLUMNS,
    ETA,
    LABELS,
    PHI,
    TARGETS,
    Windows,
    cut_windows,
    write_windows,
)
from pfcalib.models.elementnets import INPUT, ElementsConfig, build_elements
from pfcalib.particleflow.elements import element_targets, event_elements, split_clusters
from pfcalib.particleflow.event import Event
from pfcalib.particleflow.one_network import KIND, MEANING
from pfcalib.training.fit import (
    ArrayBatches,
    Arrays,
    Say,
    TrainConfig,
    TrainResult,
    fit_model,
)

COLUMNS = (ELEMENT_COLUMNS, TARGETS)
N_REFERENCE = 200  # windows that check an export
MANY = 2000  # windows to train on, above which XLA pays
RAREST = 10.0  # weight of a label at most
# columns that change their sign with eta, and with phi and all charges; likewise of the targets
_MIRRORS = [
    [[i for i, name in enumerate(names) if name.startswith(starts)] for names in COLUMNS]
    for starts in (("eta", "tilt", "d_eta"), ("phi", "bend", "d_phi"))
]


class ElementData(NamedTuple):
    """Elements of events, in windows."""

    columns: NDArray[np.float32]  # (n, len(ELEMENT_COLUMNS))
    targets: NDArray[np.float32]  # (n, len(TARGETS))
    windows: Windows
    event: NDArray[np.int64]  # (n_windows,) place of the event

    def take(self, n_events: int) -> ElementData:
        """The first events."""
        n = int(np.searchsorted(self.event, n_events))
        rows, is_core, phi = self.windows
        windows = Windows(rows[:n], is_core[:n], phi[:n])
        return self._replace(windows=windows, event=self.event[:n])


@dataclass(frozen=True, kw_only=True)
class ElementTraining:
    """A network and its training.

    Parameters
    ----------
    network : ElementsConfig
    n_core : int
        Places of a window that the network speaks of; the others are those of its neighbours.
    of_cells : bool
        Each cell of a cluster is an element, not the cluster.
    train : TrainConfig
        The loss is that of the network, whatever this says; the seed is that of the first weights
        too.
    """

    network: ElementsConfig = field(default_factory=ElementsConfig)
    n_core: int = 64
    of_cells: bool = False
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=32, epochs=10, patience=10, loss="mse",
            schedule="cosine_steps", clip_norm=1.0, weight_decay=1e-4,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 < self.n_core <= self.network.n_elements:
            raise ConfigError(
                f"ElementTraining: n_core = {self.n_core}, expected 1 to n_elements = "
                f"{self.network.n_elements}"
            )
        if self.train.loss != "mse":
            raise ConfigError(
                f"ElementTraining: loss = {self.train.loss!r}, expected 'mse', for which the "
                "network puts its own"
            )

    @property
    def n_halo(self) -> int:
        """Places of neighbours."""
        return self.network.n_elements - self.n_core


class ElementFit(NamedTuple):
    """A trained network."""

    path: Path  # its ONNX file
    folder: Path  # with `model.keras`
    result: TrainResult


def collect_elements(
    events: Iterable[Event], cells: RingCells, config: ElementTraining
) -> ElementData:
    """Windows of all elements of events, and what is to be learnt of them.

    Parameters
    ----------
    events : iterable of Event
        With truth.
    cells : RingCells
    config : ElementTraining

    Raises
    ------
    ConfigError
        If there is no element.
    ValidationError
        If an event has no truth.
    """
    columns, targets, windows, places, first = [], [], [], [], 0
    for i, event in enumerate(events):
        if config.of_cells:
            event = split_clusters(event, cells)
        elements = event_elements(event, cells)
        columns.append(elements.columns)
        targets.append(element_targets(event, elements))
        place = elements.columns[:, [ETA, PHI]].T
        cut = cut_windows(*place, n_core=config.n_core, n_halo=config.n_halo)
        windows.append(cut._replace(rows=np.where(cut.rows >= 0, cut.rows + first, -1)))
        places.append(np.full(len(cut.phi), i))
        first += len(elements.energy)
    if not first:
        raise ConfigError("no track and no cluster in these events")
    joined = Windows(*(np.concatenate(part) for part in zip(*windows, strict=True)))
    return ElementData(
        np.concatenate(columns), np.concatenate(targets), joined, np.concatenate(places)
    )


def join_elements(parts: Sequence[ElementData]) -> ElementData:
    """Those of several files, one after the other."""
    rows, event, first, n_events = [], [], 0, 0
    for part in parts:
        of = part.windows.rows
        rows.append(np.where(of >= 0, of + first, -1))
        event.append(part.event + n_events)
        first, n_events = first + len(part.columns), n_events + int(part.event[-1]) + 1
    windows = Windows(
        np.concatenate(rows),
        np.concatenate([part.windows.is_core for part in parts]),
        np.concatenate([part.windows.phi for part in parts]),
    )
    return ElementData(
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.targets for part in parts]),
        windows,
        np.concatenate(event),
    )


class WindowBatches(ArrayBatches):
    """Batches of windows; those to train on in a new order each epoch, and half of them seen in a
    mirror, in eta and in phi, under which the barrel is the same.
    """

    def __init__(
        self, data: ElementData, label_weight: NDArray[np.float32], *, batch_size: int, seed: int,
        shuffle: bool,
    ) -> None:  # fmt: skip
        super().__init__(({}, data.event), batch_size=batch_size, seed=seed, shuffle=shuffle)
        self.data, self.label_weight = data, label_weight

    def set_epoch(self, epoch: int) -> None:
        """Order and mirrors of the windows in that epoch, counted from 0."""
        super().set_epoch(epoch)
        rng = np.random.default_rng((self.seed, epoch, 1))
        signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), (self.n_clusters, 2))
        self.signs = signs if self.shuffle else np.ones_like(signs)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        of = self.data.windows
        inputs = write_windows(self.data.columns, of, rows)
        targets = self.data.targets[of.rows[rows]]
        label = targets[..., TARGETS.index("label")].astype(int)
        targets[..., TARGETS.index("weight")] = self.label_weight[label] * of.is_core[rows]
        for sign, mirrored in zip(self.signs[rows].T, _MIRRORS, strict=True):
            for array, columns in zip((inputs, targets), mirrored, strict=True):
                array[..., columns] *= sign[:, None, None]
        return {INPUT: inputs}, targets


def label_weights(data: ElementData) -> NDArray[np.float32]:
    """Weight of each label, one over the root of its share, 1 for the most frequent, at most
    RAREST; the electrons of a jet must not drown in pile-up, nor rule.
    """
    label = data.targets[:, TARGETS.index("label")].astype(int)
    share = np.bincount(label, minlength=len(LABELS)) / len(label)
    weight = np.sqrt(share.max() / np.maximum(share, 1e-12))
    return np.minimum(weight, RAREST).astype(np.float32)


def fit_elements(
    training: ElementData,
    held_out: ElementData,
    config: ElementTraining | None = None,
    *,
    inputs: str,
    start: Path | None = None,
    folder: Path | None = None,
    say: Say = print,
) -> ElementFit:
    """Train a network on windows of elements and export it, or find it; a training that was killed
    goes on.

    Parameters
    ----------
    training, held_out : ElementData
    config : ElementTraining, optional
    inputs : str
        What the events are, such as a hash of their content: part of the key of the cache.
    start : path, optional
        `model.keras` of a network of the same kind, whose weights are the first ones.
    folder : path, optional
        Where trainings are kept, each in a folder of its own; in the cache by default.
    say : callable
        Takes one line an epoch.

    Raises
    ------
    ValidationError
        If the file does not compute what the network does.
    """
    config = config or ElementTraining()
    train, since = config.train, file_sha256(start) if start else ""
    key = cache_key(
        "training", config=config, inputs=inputs, start=since, meaning=MEANING,
        n_windows=len(training.event),
    )  # fmt: skip
    path = (folder or cache_folder() / "models") / f"{KIND}-{key}" / f"{KIND}.onnx"
    weight = label_weights(training)
    with locked(path.parent):
        model = build_elements(config.network, seed=train.seed)
        model.with_xla = len(training.event) > MANY
        if start is not None:
            model.load_weights(start)
        feed, check = (
            WindowBatches(
                data, weight, batch_size=train.batch_size, seed=train.seed, shuffle=shuffle
            )
            for data, shuffle in ((training, True), (held_out, False))
        )
        result = fit_model(model, feed, check, train, out_dir=path.parent, say=say)
        if not contract_path(path).exists():  # it is written last
            rows = np.arange(min(N_REFERENCE, len(held_out.event)))
            export_onnx(
                model,
                path,
                inputs={INPUT: write_windows(held_out.columns, held_out.windows, rows)},
                kind=KIND,
                training={**asdict(config), "inputs": inputs, "best_epoch": result.best_epoch},
                normalisation=MEANING,
            )
    return ElementFit(path, path.parent, result)
