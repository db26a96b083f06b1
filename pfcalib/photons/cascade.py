"""A cascade of three networks that finds photons on the map of the barrel, after the multi-task
cascade for faces (arXiv:1604.02878).

The first network is fully convolutional and looks at every cell; its proposals are cut out of the
map, where it is not cut at the edge but filled with dead cells, for the second network, and what
that keeps, with more around it, for the third. Each says how likely a photon is, where the box and
where the centre of its shower lie, so that no window is fixed and no shower need be complete. All
showers have the size of Moliere's radius, so there is no pyramid of scales as there is for faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, locked
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.photons.boxes import overlaps, suppress
from pfcalib.photons.photonmaps import N_ETA, N_PHI, Maps, to_maps
from pfcalib.photons.photonnets import SCALES, Arcsinh
from pfcalib.training.fit import HISTORY, History, Say, TrainConfig, fit_model, read_history

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
IntArray = NDArray[np.int64]
Tensor = Any
Run = Callable[[F32], F32]  # maps (n, n_eta, n_phi, 11) to outputs (n, ..., 7)

NAMES = ("proposal", "refining", "output")
SIZES = {"proposal": (7, 7), "refining": (7, 11), "output": (11, 15)}  # cells in eta and phi
SHARE_HARD = 0.7  # of the losses of classes in a batch, the hardest, which count
CENTRE_WEIGHT = {"proposal": 0.5, "refining": 0.5, "output": 1.0}  # beside 1 of the class
BOX_WEIGHT = 0.5
N_REFERENCE = 300
# GeV of a pixel, as the arcsinh of photonnets, of parts of a cell; the last is a flag
_SCALES = (*(SCALES["EMB1"] / 4.0,) * 8, SCALES["EMB2"], SCALES["EMB3"] / 2.0, 1.0)
_BOX = (-1.25, -1.5, 1.25, 1.5)  # what boxes start from, cells: about the median of photons
NORMALISATION = (
    "map: eight strips, EMB2, EMB3 a cell of EMB2, GeV at the EM scale, and 1 where it is alive; "
    "scaled inside. Output: probability of a photon; box (eta, phi low, eta, phi high) and centre "
    "(eta, phi) of its shower from the middle of the central cell, in cells"
)


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """Sizes of the networks, and which overlap makes what.

    Parameters
    ----------
    filters : tuple of int
        Of the first, second and third network.
    positive, part, negative : float
        Overlap with a photon's box above which a proposal is one, above which it learns box and
        centre but no class, and below which it is none; between the last two it is ignored.
    keep : tuple of float
        Probability above which the first and the second network hand a proposal on, and the third
        gives it out.
    double : tuple of float
        Overlap above which the less likely of two proposals of each network is dropped.
    most : int
        Proposals an event that the first network hands on, at most.
    """

    filters: tuple[int, int, int] = (16, 24, 32)
    positive: float = 0.5
    part: float = 0.35
    negative: float = 0.25
    keep: tuple[float, float, float] = (0.05, 0.05, 0.05)
    double: tuple[float, float, float] = (0.6, 0.6, 0.5)
    most: int = 20

    def __post_init__(self) -> None:
        if not 1.0 > self.positive >= self.part >= self.negative > 0.0:
            raise ConfigError(f"CascadeConfig: overlaps must fall from below 1 to above 0: {self}")


@keras.saving.register_keras_serializable(package="pfcalib")
class Detector(keras.Model):
    """A network whose loss is that of class, box and centre, whatever loss it is compiled with.

    Targets are rows (class, whether box and centre count, box, centre) with class 1, 0, or -1 where
    it does not count.
    """

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:  # fmt: skip
        weight = CENTRE_WEIGHT[self.name]
        return detection_loss(y, ops.reshape(y_pred, (-1, 7)), centre_weight=weight)


def detection_loss(y: Tensor, output: Tensor, *, centre_weight: float) -> Tensor:
    """Cross-entropy of the hardest SHARE_HARD of the proposals whose class counts, and Huber's loss
    of box and centre where they count, linear beyond a cell, as the boxes of some conversions are
    very wide; shapes (n, 8) and (n, 7), a number.

    >>> y = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]], "float32")
    >>> p = np.array([[0.5, 0, 0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0, 0]], "float32")
    >>> round(float(detection_loss(y, p, centre_weight=0.5)), 4)  # ln 2
    0.6931
    """
    p = ops.clip(output[:, 0], 1e-6, 1.0 - 1e-6)
    photon = ops.cast(y[:, 0] > 0.5, p.dtype)
    counts = ops.cast(y[:, 0] > -0.5, p.dtype)
    entropy = -counts * (photon * ops.log(p) + (1.0 - photon) * ops.log(1.0 - p))
    n_hard = ops.maximum(ops.cast(SHARE_HARD * ops.sum(counts), "int32"), 1)
    falling = -ops.sort(-entropy)
    hard = ops.cast(ops.arange(ops.shape(p)[0]) < n_hard, p.dtype)
    loss = ops.sum(hard * falling) / ops.cast(n_hard, p.dtype)
    for columns, weight in ((slice(2, 6), BOX_WEIGHT), (slice(6, 8), centre_weight)):
        apart = output[:, columns.start - 1 : columns.stop - 1] - y[:, columns]
        size = ops.abs(apart)
        off = ops.mean(ops.where(size < 1.0, 0.5 * size * size, size - 0.5), axis=1)
        loss += weight * ops.sum(y[:, 1] * off) / ops.maximum(ops.sum(y[:, 1]), 1.0)
    return loss


def build_network(name: str, filters: int = 16) -> keras.Model:
    """One of the NAMES, untrained.

    Parameters
    ----------
    name : str
    filters : int
        Of the first convolution.

    Returns
    -------
    keras.Model
        Input "map" (n, n_eta, n_phi, 11), of the proposal network of any size from SIZES on, of the
        others of SIZES; output "found" (n, n_eta - 6, n_phi - 6, 7) or (n, 7).

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    if name not in NAMES:
        raise ConfigError(f"network {name!r}: expected one of {', '.join(NAMES)}")
    size = (None, None) if name == "proposal" else SIZES[name]
    pixels = keras.Input((*size, len(_SCALES)), name="map", dtype="float32")
    x = layers.Rescaling([1.0 / scale for scale in _SCALES], name="scaled")(pixels)
    x = Arcsinh(1.0, name="arcsinh")(x)

    def convolution(x: Tensor, n: int, kernel: int, padding: str, k: int) -> Tensor:
        return layers.Conv2D(
            n, kernel, padding=padding, activation="relu", kernel_initializer="he_normal",
            name=f"conv{k}",
        )(x)  # fmt: skip

    if name == "proposal":
        for k, n in enumerate((filters, filters, 2 * filters)):
            x = convolution(x, n, 3, "valid", k)
    else:
        x = convolution(x, filters, 3, "same", 0)
        x = convolution(x, filters, 3, "same", 1)
        x = convolution(x, 2 * filters, 3, "valid", 2)
        if name == "output":
            x = convolution(x, 2 * filters, 3, "valid", 3)
        x = layers.Flatten(name="flat")(x)
        x = layers.Dropout(0.2, name="dropout")(x)
        x = layers.Dense(
            4 * filters, activation="relu", kernel_initializer="he_normal", name="dense"
        )(x)

    def head(n: int, label: str, **options: Any) -> Tensor:
        if name == "proposal":
            return layers.Conv2D(n, 1, name=label, **options)(x)
        return layers.Dense(n, name=label, **options)(x)

    start = keras.initializers.Constant(_BOX)
    parts = [head(1, "p", activation="sigmoid"), head(4, "box", bias_initializer=start)]
    found = layers.Concatenate(name="found")([*parts, head(2, "centre")])
    return Detector({"map": pixels}, found, name=name)


class Crops(keras.utils.PyDataset):
    """Batches of what is cut out of maps and what is to be learned, mirrored by chance in eta and
    phi in training.

    Parameters
    ----------
    pixels : ndarray, shape (n, n_eta, n_phi, 11) float16
    targets : ndarray, shape (n, 8) float32
        See `Detector`.
    batch_size, seed : int
    shuffle : bool
        For training.
    """

    def __init__(
        self, pixels: NDArray[np.float16], targets: F32, *, batch_size: int = 256, seed: int = 1,
        shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(workers=1, use_multiprocessing=False)
        self.pixels, self.targets = pixels, targets
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.n_clusters = len(targets)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order and reflections of that epoch, counted from 0."""
        self.epoch = epoch
        rng, n = np.random.default_rng((self.seed, epoch)), self.n_clusters
        self.order = rng.permutation(n) if self.shuffle else np.arange(n)
        self.mirror = rng.integers(4, size=len(self)) * self.shuffle

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.n_clusters // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, F32], F32]:
        rows = np.sort(self.order[index * self.batch_size : (index + 1) * self.batch_size])
        eta, phi = bool(self.mirror[index] & 1), bool(self.mirror[index] & 2)
        pixels, targets = mirrored(self.pixels[rows], self.targets[rows], eta=eta, phi=phi)
        return {"map": pixels.astype(np.float32)}, targets


def mirrored(
    pixels: NDArray[np.floating], targets: F32, *, eta: bool, phi: bool
) -> tuple[NDArray[np.floating], F32]:
    """Crops and their targets in a mirror; in that of eta the strips of a cell change order too."""
    pixels, targets = pixels[:, :: -1 if eta else 1, :: -1 if phi else 1].copy(), targets.copy()
    for flip, low, high, centre in ((eta, 2, 4, 6), (phi, 3, 5, 7)):
        if flip:
            targets[:, [low, high]] = -targets[:, [high, low]]
            targets[:, centre] *= -1.0
    if eta:
        pixels[..., :8] = pixels[..., 7::-1]
    return pixels, targets


class Found(NamedTuple):
    """What was found in events, sorted by event."""

    event: IntArray  # (n,)
    cell: IntArray  # (n, 2) about which the network looked
    score: F64  # (n,) probability of a photon
    box: F64  # (n, 4) cells
    centre: F64  # (n, 2) cells

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Found:
        """Some of them."""
        return Found._make(column[rows] for column in self)


def join_found(parts: Sequence[Found]) -> Found:
    """One after the other."""
    return Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def padded(maps: F32, size: tuple[int, int]) -> F32:
    """Maps with half a size of dead cells added in eta and of what lies around the ring in phi."""
    eta, phi = size[0] // 2, size[1] // 2
    return np.pad(
        np.concatenate([maps[:, :, -phi:], maps, maps[:, :, :phi]], axis=2),
        ((0, 0), (eta, eta), (0, 0), (0, 0)),
    )


def crops(maps: F32, event: IntArray, cell: IntArray, size: tuple[int, int]) -> F32:
    """What lies about cells, shape (n, *size, 11); beyond the edge in eta cells are dead."""
    windows = sliding_window_view(padded(maps, size), size, axis=(1, 2))
    return np.ascontiguousarray(
        np.moveaxis(windows[event, cell[:, 0], cell[:, 1]], 1, -1), np.float32
    )


def targets_of(box: F64, cell: IntArray, truth: F64, centre: F64, config: CascadeConfig) -> F32:
    """What proposals of one event are to learn, see `Detector`, shape (n, 8); a row of the class -1
    that counts nowhere is ignored.

    Parameters
    ----------
    box, cell : ndarray, shape (n, 4), (n, 2)
        Boxes of the proposals and cells that offsets are counted from.
    truth, centre : ndarray, shape (m, 4), (m, 2)
        Of the photons.
    config : CascadeConfig
    """
    made = np.zeros((len(box), 8), np.float32)
    if not len(truth):
        return made
    overlap = overlaps(box, truth)
    best, which = overlap.max(axis=1), np.argmax(overlap, axis=1)
    # what overlaps most with a photon is one, however little that is
    positive = best >= config.positive
    positive[np.argmax(overlap, axis=0)[overlap.max(axis=0) >= config.part]] = True
    made[:, 0] = np.where(positive, 1.0, np.where(best < config.negative, 0.0, -1.0))
    made[:, 1] = positive | (best >= config.part)
    middle = cell + 0.5
    offset = np.column_stack([truth[which], centre[which]]) - np.tile(middle, 3)
    for columns in ([1, 3], [5]):  # the nearest turn
        turn = np.round(offset[:, columns].mean(axis=1, keepdims=True) / N_PHI)
        offset[:, columns] -= N_PHI * turn
    made[:, 2:] = np.where(made[:, 1:2] > 0.0, offset, 0.0)
    return made


def anchors(cell: IntArray) -> F64:
    """Boxes about cells before any network has looked, shape (n, 4)."""
    return np.asarray(np.tile(cell + 0.5, 2) + np.array(_BOX))


def _seen_cells(energy: F64, centre: F64, rng: np.random.Generator) -> IntArray:
    """Cells of an event that the proposal network learns from: about photons, the hottest ones,
    and some by chance; shape (n, 2).
    """
    step = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), -1).reshape(-1, 2)
    near = (np.floor(centre).astype(np.int64)[:, None] + step).reshape(-1, 2)
    hot = np.argpartition(energy.ravel(), -16)[-16:]
    flat = np.append(hot, rng.integers(energy.size, size=12))
    cells = np.concatenate([near, np.column_stack(np.divmod(flat, N_PHI))])
    cells = cells[(cells[:, 0] >= 0) & (cells[:, 0] < N_ETA)]
    cells[:, 1] %= N_PHI
    return np.unique(cells, axis=0)


def examples(
    maps: Maps, name: str, config: CascadeConfig, before: Mapping[str, Run], *, seed: int,
    batch_size: int, shuffle: bool, chunk: int = 20,
) -> Crops:  # fmt: skip
    """What one network learns from: cells for the first one, for the others what the networks
    before them hand on, which are the hard cases, and boxes shaken about the photons.

    Parameters
    ----------
    maps : Maps
        Of one split.
    name : str
        Of the network.
    config : CascadeConfig
    before : mapping
        The trained networks before it.
    seed, batch_size : int
    shuffle : bool
        For training.
    chunk : int
        Events at once.
    """
    rng, size = np.random.default_rng(seed), SIZES[name]
    pixels, targets = [], []
    for first in range(0, maps.n_events, chunk):
        rows = np.arange(first, min(first + chunk, maps.n_events))
        images = to_maps(maps.cells[rows].astype(np.float32), maps.dead[rows])
        proposals = detect(images, before, config) if before else None
        for i, row in enumerate(rows):
            own = maps.event == row
            truth, centre = maps.box[own], maps.centre[own]
            if proposals is None:
                cell = _seen_cells(images[i, :, :, 8].astype(np.float64), centre, rng)
                box = anchors(cell)
            else:
                some = proposals.take(proposals.event == i)
                shaken = np.repeat(truth, 2, axis=0) + rng.normal(0.0, 0.4, (2 * len(truth), 4))
                box = np.concatenate([some.box, shaken])
                cell = cells_of(0.5 * (box[:, :2] + box[:, 2:]))
            made = targets_of(box, cell, truth, centre, config)
            used = (made[:, 0] >= 0.0) | (made[:, 1] > 0.0)
            pixels.append(
                crops(images[i : i + 1], np.zeros(used.sum(), np.int64), cell[used], size)
                .astype(np.float16)
            )  # fmt: skip
            targets.append(made[used])
    return Crops(
        np.concatenate(pixels), np.concatenate(targets), batch_size=batch_size, seed=seed,
        shuffle=shuffle,
    )  # fmt: skip


def cells_of(place: F64) -> IntArray:
    """Cells that hold places, those beyond the edge the nearest ones; shape (n, 2)."""
    cell = np.floor(place).astype(np.int64)
    return np.column_stack([np.clip(cell[:, 0], 0, N_ETA - 1), cell[:, 1] % N_PHI])


class Stage(NamedTuple):
    """A trained network of the cascade."""

    path: Path  # its ONNX file
    history: History  # of its training
    run: Run  # in ONNX Runtime, on one thread


def fit_stage(
    name: str,
    data: Callable[[], tuple[Crops, Crops]],
    config: CascadeConfig,
    train: TrainConfig,
    *,
    settings: Mapping[str, Any],
    say: Say = print,
) -> Stage:
    """Train one network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    name : str
    data : callable
        Makes training and validation examples, if they are needed.
    config : CascadeConfig
    train : TrainConfig
    settings : mapping
        JSON values: all that decides on the examples besides.
    say : callable
        Takes one line an epoch.
    """
    train = replace(train, loss="mse")  # instead of which the networks bring their own
    told = {**settings, "cascade": asdict(config), "train": asdict(train)}
    key = cache_key("features", "training", name=name, **told)
    path = cache_folder() / "models" / f"cascade-{name}-{key}" / f"{name}.onnx"
    with locked(path.parent):
        if not contract_path(path).exists():  # it is written last
            training, held_out = data()
            keras.utils.set_random_seed(train.seed)
            model = build_network(name, config.filters[NAMES.index(name)])
            result = fit_model(model, training, held_out, train, out_dir=path.parent, say=say)
            inputs = {"map": held_out.pixels[:N_REFERENCE].astype(np.float32)}
            export_onnx(
                model, path, inputs=inputs, kind="eta_phi_map",
                training=told | {"best_epoch": result.best_epoch}, normalisation=NORMALISATION,
            )  # fmt: skip
    return Stage(path, read_history(path.parent / HISTORY), runner(path))


def runner(path: Path) -> Run:
    """A file of the cascade in ONNX Runtime, on one thread."""
    session = open_session(path)
    return lambda pixels: np.asarray(session.run(None, {"map": pixels})[0])


def detect(maps: F32, networks: Mapping[str, Run], config: CascadeConfig) -> Found:
    """What the cascade, or its first networks, finds.

    Parameters
    ----------
    maps : ndarray, shape (n, N_ETA, N_PHI, 11)
        See `photonmaps.to_maps`.
    networks : mapping
        By name, from the first on.
    config : CascadeConfig
    """
    output = networks["proposal"](padded(maps, SIZES["proposal"]))
    event, eta, phi = np.nonzero(output[..., 0] > config.keep[0])
    cell = np.column_stack([eta, phi])
    found = _found(event, cell, output[event, eta, phi], len(maps), config.double[0], config.most)
    for k, name in enumerate(NAMES[1 : len(networks)], start=1):
        cell = cells_of(0.5 * (found.box[:, :2] + found.box[:, 2:]))
        if not len(cell):
            return found
        output = networks[name](crops(maps, found.event, cell, SIZES[name]))
        kept = output[:, 0] > config.keep[k]
        found = _found(
            found.event[kept], cell[kept], output[kept], len(maps), config.double[k], config.most
        )
    return found


def _found(
    event: IntArray, cell: IntArray, output: F32, n_events: int, double: float, most: int
) -> Found:
    """Boxes and centres on the map, without double ones."""
    place = np.tile(cell + 0.5, 3) + output[:, 1:]
    score, box = output[:, 0].astype(np.float64), np.ascontiguousarray(place[:, :4], np.float64)
    ends = np.searchsorted(event, np.arange(n_events + 1))
    rows = [
        low + suppress(box[low:high], score[low:high], double)[:most]
        for low, high in pairwise(ends)
    ]
    chosen = np.concatenate([np.zeros(0, np.int64), *rows])
    centre = place[chosen, 4:].astype(np.float64)
    centre[:, 1] %= N_PHI
    return Found(event[chosen], cell[chosen], score[chosen], box[chosen], centre)
