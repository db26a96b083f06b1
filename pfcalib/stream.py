"""The Keras data generator: batches of images straight from any number of ROOT files, at bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import ImageWindow
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs, input_layers
from pfcalib.features.moments import log10_floor
from pfcalib.samples.cache import CachedSample, open_cache
from pfcalib.samples.read import PathLike, as_paths
from pfcalib.samples.schema import is_em
from pfcalib.samples.select import SELECT_COLUMNS, Balance, Choice, SelectionConfig, choose_clusters
from pfcalib.samples.split import FRACTIONS

Batch = tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]] | tuple[dict[str, NDArray[np.float32]], NDArray[np.float32], NDArray[np.float32]]


class ClusterStream(keras.utils.PyDataset):
    """Batches (inputs, labels) or, balanced by weight, (inputs, labels, weights), of the chosen clusters of ROOT files.

    Every chosen cluster comes exactly once an epoch, the last batch may be smaller. The order of an epoch depends on (seed, epoch)
    alone, not on workers. Train with ``model.fit(stream, shuffle=False, callbacks=[EpochOrder(stream), ...])``: `fit` would else
    shuffle the batches once more with a seed of its own, and it ends more epochs than it trains. A model has its inputs by name,
    ``keras.Model({"pixels": ...}, ...)``. With
    ``use_multiprocessing`` processes must be spawned, not forked (``multiprocessing.set_start_method("spawn")``); a stream is small to send.

    Parameters
    ----------
    paths : path-like or sequence of them
        Samples with the same cells; each is turned into memory maps on first use, see `pfcalib.samples.cache`.
    kind : str
        Inputs as in `pfcalib.features.inputs.build_inputs`.
    split : "train", "validation", "test" or "all"
        By the hash of the event number.
    batch_size : int
    seed : int
        Of the balancing and of the order.
    shuffle : bool
        A new order each epoch, across all files; else the order of the files.
    balance : "subsample", "weight" or None
        See `pfcalib.samples.select.choose_clusters`.
    select : SelectionConfig
        Cuts; the defaults of the class if None.
    scalars : sequence of str
        Scalar columns given as one more input "scalars" of shape (n, len(scalars)); those in GeV as log10.
    fractions, salt
        Of the split, see `pfcalib.samples.split.split_of`.
    cache_dir : path-like, optional
        Folder of the memory maps; next to each file by default.
    workers, use_multiprocessing, max_queue_size
        As in `keras.utils.PyDataset`; one thread feeds faster than a network of this kind trains.

    Raises
    ------
    BadFileError
        If a file is not a sound sample.
    ConfigError
        If kind, split or balance is unknown, or the batch size is not positive.
    ValidationError
        If no cluster is chosen, or the files do not have the same cells.
    """

    def __init__(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        kind: str = "flat",
        split: str = "train",
        batch_size: int = 256,
        seed: int = 1,
        shuffle: bool = True,
        balance: Balance = "subsample",
        select: SelectionConfig | None = None,
        scalars: Sequence[str] = (),
        fractions: Sequence[float] = FRACTIONS,
        salt: int = 0,
        cache_dir: PathLike | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, max_queue_size=max_queue_size)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be positive, got {batch_size}")
        self.layers = input_layers(kind)
        self.paths, self.kind, self.split, self.batch_size = as_paths(paths), kind, split, batch_size
        self.seed, self.shuffle, self.balance, self.scalars = seed, shuffle, balance, tuple(scalars)
        self._cache_dir = cache_dir
        self._open()
        columns = {name: self._column(name) for name in SELECT_COLUMNS}
        self._choice: Choice = choose_clusters(columns, split=split, select=select, balance=balance, seed=seed, fractions=fractions, salt=salt)
        if not len(self._choice.rows):
            raise ValidationError(f"no cluster of {', '.join(map(str, self.paths))} is in split {split!r} and passes the selection")
        self._labels = one_hot(is_em(columns["truthPdgId"][self._choice.rows]))
        self._scalar_input = np.column_stack([_scaled(name, self.column(name)) for name in self.scalars]) if self.scalars else None
        self._centre = self._window.central_cell(self.column("clusterEta"), self.column("clusterPhi"))
        self._norm = self.column("clusterE").astype(np.float64)
        self.set_epoch(0)

    def _open(self) -> None:
        """Map the files; also done in each spawned process."""
        self._caches: list[CachedSample] = [open_cache(path, cache_dir=self._cache_dir) for path in self.paths]
        for path, cache in zip(self.paths[1:], self._caches[1:], strict=True):
            if not cache.geo.same_as(self._caches[0].geo):
                raise ValidationError(f"{path} and {self.paths[0]} do not have the same cells (CellGeo)")
        self._first = np.cumsum([0, *(cache.n_clusters for cache in self._caches)])
        self._window = ImageWindow(self._caches[0].geo, layers=self.layers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_caches", "_first", "_window")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.n_clusters // self.batch_size)

    @property
    def n_clusters(self) -> int:
        """Clusters in an epoch."""
        return len(self._choice.rows)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input without the batch axis."""
        extra = {"scalars": (len(self.scalars),)} if self.scalars else {}
        return INPUT_SHAPES[self.kind] | extra

    @property
    def labels(self) -> NDArray[np.float32]:
        """Labels (n_clusters, 2) = [charged, neutral] of the chosen clusters in the order of the files."""
        return self._labels

    @property
    def weights(self) -> NDArray[np.float32]:
        """Weights of the chosen clusters in the order of the files."""
        return self._choice.weights

    def column(self, name: str) -> NDArray[Any]:
        """A scalar of the chosen clusters in the order of the files, which is that of the batches with shuffle=False."""
        return self._column(name)[self._choice.rows]

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0; for a training that is taken up again."""
        self.epoch = epoch
        self._order = np.random.default_rng([self.seed, epoch]).permutation(self.n_clusters) if self.shuffle else np.arange(self.n_clusters)

    def on_epoch_end(self) -> None:
        """Called by Keras after each epoch, and once before a fit or an evaluation: the next order."""
        self.set_epoch(self.epoch + 1)

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index` of the present epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        pixels = self._pixels(chosen)
        flat = "pixels" in INPUT_SHAPES[self.kind]  # the rows of pixels are the input: no copy
        inputs = {"pixels": pixels} if flat else build_inputs(self._window.split(pixels), self.kind)
        if self._scalar_input is not None:
            inputs["scalars"] = self._scalar_input[chosen]
        if self.balance == "weight":
            return inputs, self._labels[chosen], self.weights[chosen]
        return inputs, self._labels[chosen]

    def _pixels(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Flat images of some of the chosen clusters, file by file."""
        pixels = np.zeros((len(chosen), self._window.n_pixels), dtype=np.float32)
        rows = self._choice.rows[chosen]
        file = np.searchsorted(self._first, rows, side="right") - 1
        for i in np.unique(file):
            place = np.flatnonzero(file == i)
            cache, here = self._caches[i], chosen[place]
            own = rows[place] - self._first[i]
            self._window.fill(pixels, place, own, cache.offsets, cache.cell, cache.energy, self._centre[here], self._norm[here])
        return pixels

    def _column(self, name: str) -> NDArray[Any]:
        """A scalar of all clusters of all files."""
        if name not in self._caches[0].scalars:
            raise ConfigError(f"no scalar column {name!r}; there are {', '.join(self._caches[0].scalars)}")
        return np.concatenate([cache.scalars[name] for cache in self._caches])


class EpochOrder(keras.callbacks.Callback):
    """Keeps the order of a stream in step with the epochs that `fit` counts, also in a training that is taken up again."""

    def __init__(self, stream: ClusterStream) -> None:
        super().__init__()
        self.stream = stream

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the order of this epoch."""
        self.stream.set_epoch(epoch)


def one_hot(em: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Labels of the softmax: [charged, neutral], shape (n, 2).

    >>> one_hot(np.array([True, False])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return np.column_stack([~em, em]).astype(np.float32)


def _scaled(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Energies as log10 of GeV, anything else as it is."""
    return (log10_floor(values) if COLUMNS[name].unit == "GeV" else values).astype(np.float32)
