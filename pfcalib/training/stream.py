"""The Keras data generator: batches of images from any number of ROOT files at bounded memory,
straight or over a memory-mapped cache.

For each chosen cluster 15 bytes (23 for a regression; 136 more with moments, 8 with points) stay in
memory, and 8 for each cluster of a cache, whatever else the files hold; cells are read batch by
batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.augment import AugmentConfig, augment_cells
from pfcalib.features.images import IMAGE_LAYERS, ImageWindow
from pfcalib.features.inputs import INPUT_SHAPES, WITH_SIGNIFICANCE, build_inputs, input_layers
from pfcalib.features.points import N_POINTS, POINT_FEATURES, PointMaker
from pfcalib.features.scalars import MOMENT_COLUMNS, log10_floor
from pfcalib.features.targets import TargetConfig, flat_weights
from pfcalib.samples.read import PathLike, as_paths
from pfcalib.samples.schema import is_em
from pfcalib.samples.select import (
    SELECT_COLUMNS,
    Balance,
    SelectionConfig,
    choose_from_chunks,
    row_type,
)
from pfcalib.samples.sources import CacheSource, RootSource, Source
from pfcalib.samples.split import FRACTIONS

Batch = (
    tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]
    | tuple[dict[str, NDArray[np.float32]], NDArray[np.float32], NDArray[np.float32]]
)

POOL_SIZE = 100_000  # clusters


class ClusterStream(keras.utils.PyDataset):
    """Batches (inputs, labels) or, if weighted, (inputs, labels, weights), of the chosen clusters
    of ROOT files; targets in place of labels.

    Every chosen cluster comes exactly once an epoch, the last batch may be smaller. The order of an
    epoch depends on (seed, epoch) alone, not on workers. Train with ``model.fit(stream,
    shuffle=False, ...)``, as `fit` would else shuffle the batches once more with a seed of its own,
    and with a ``keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs:
    stream.set_epoch(epoch))``, as it ends more epochs than it trains. A model has its inputs by
    name, ``keras.Model({"pixels": ...}, ...)``. With ``use_multiprocessing`` processes must be
    spawned, not forked (``multiprocessing.set_start_method("spawn")``); a stream is small to send.

    Parameters
    ----------
    paths : path-like or sequence of them
        Samples with the same cells.
    source : "cache" or "root"
        "cache" turns each file into memory maps on first use (`pfcalib.samples.maps`) and serves
        any batch at once, to threads and processes. "root" needs no disk: it reads each file once
        an epoch, basket after basket in random order, through a pool that the clusters leave at
        random (`pfcalib.samples.sources.RootSource`). Batches should then be asked for in their
        order, by one process: a batch far from the last one is right, but slow.
    pool_size : int
        Clusters in the pool of "root": the more, the better they are mixed. Six bytes for each of
        their cells.
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
        Scalar columns given as one more input "scalars" of shape (n, len(scalars)); those in GeV as
        log10.
    moments : bool
        One more input "moments", the columns `features.scalars.MOMENT_COLUMNS` as they are; goes
        with kind "moments".
    target : TargetConfig, optional
        Of a regression; a flat one gives weights. Without it the labels are the classes.
    augment : AugmentConfig, optional
        Change noise and cuts of the clusters at random, anew in every epoch; for source "cache", as
        "root" would change whole baskets a batch.
    fractions, salt
        Of the split, see `pfcalib.samples.split.split_of`.
    cache_dir : path-like, optional
        Folder of the memory maps; next to each file by default. `pfcalib.samples.maps.clear_cache`
        removes them.
    workers, use_multiprocessing, max_queue_size
        As in `keras.utils.PyDataset`; one thread feeds faster than a network of this kind trains.

    Raises
    ------
    BadFileError
        If a file is not a sound sample.
    ConfigError
        If source, kind, split, balance or a column is unknown, a size is not positive, or several
        processes shall share "root".
    ValidationError
        If no cluster is chosen, or the files do not have the same cells.
    """

    def __init__(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        source: Literal["cache", "root"] = "cache",
        pool_size: int = POOL_SIZE,
        kind: str = "flat",
        split: str = "train",
        batch_size: int = 256,
        seed: int = 1,
        shuffle: bool = True,
        balance: Balance = "subsample",
        select: SelectionConfig | None = None,
        scalars: Sequence[str] = (),
        moments: bool = False,
        target: TargetConfig | None = None,
        augment: AugmentConfig | None = None,
        fractions: Sequence[float] = FRACTIONS,
        salt: int = 0,
        cache_dir: PathLike | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(
            workers=workers, use_multiprocessing=use_multiprocessing, max_queue_size=max_queue_size
        )
        if source not in ("cache", "root"):
            raise ConfigError(f"source must be 'cache' or 'root', got {source!r}")
        for name, value in (("batch_size", batch_size), ("pool_size", pool_size)):
            if value < 1:
                raise ConfigError(f"{name} must be positive, got {value}")
        if source == "root" and workers > 0 and use_multiprocessing:
            raise ConfigError(
                "source='root' is one pass over the files, which several processes cannot share: "
                "use threads, or source='cache'"
            )
        self.layers = input_layers(kind)
        if kind == "moments" and not moments:
            raise ConfigError("kind 'moments' goes with moments=True")
        self._moment_columns = MOMENT_COLUMNS if moments else ()
        if self._moment_columns and augment is not None:
            raise ConfigError("moments cannot be augmented: they are not computed anew")
        self.paths, self.kind, self.split, self.batch_size = (
            as_paths(paths),
            kind,
            split,
            batch_size,
        )
        self.seed, self.shuffle, self.scalars = seed, shuffle, tuple(scalars)
        self.target, self.augment, self.weighted = (
            target,
            augment,
            balance == "weight" or (target is not None and target.flat),
        )
        cached = source == "cache"
        self._source: Source = (
            CacheSource(self.paths, cache_dir=cache_dir)
            if cached
            else RootSource(self.paths, pool_size=pool_size)
        )
        self._open_geometry()
        options: dict[str, Any] = {
            "split": split,
            "select": select,
            "balance": balance,
            "seed": seed,
            "fractions": fractions,
            "salt": salt,
        }
        # of the chosen clusters, in the order of the files: rows among all clusters, and weights
        self.rows, self.weights = choose_from_chunks(self._source.scan(SELECT_COLUMNS), **options)
        if not len(self.rows):
            raise ValidationError(
                f"no cluster of {', '.join(map(str, self.paths))} is in split {split!r} and passes "
                "the selection"
            )
        self._look_up()
        self.set_epoch(0)

    def _open_geometry(self) -> None:
        """What makes images and points of cells."""
        self._window = ImageWindow(self._source.geo, layers=self.layers or IMAGE_LAYERS)
        self._points = PointMaker(self._source.geo) if self.kind == "points" else None

    def _look_up(self) -> None:
        """What a batch needs of each cluster besides its cells, in the narrowest types."""
        n, cell_type = self.n_clusters, np.min_scalar_type(len(self._source.geo))
        self._centre, self._norm, self._em = (
            np.empty(n, dtype=cell_type),
            np.empty(n, dtype=np.float32),
            np.empty(n, dtype=np.bool_),
        )
        self._barycentre = np.empty((n if self._points else 0, 2), dtype=np.float32)
        self._scalar_input = np.empty((n, len(self.scalars)), dtype=np.float32)
        self._moments = np.empty((n, len(self._moment_columns)), dtype=np.float32)
        e_true, columns = np.empty(n), self.target.columns if self.target else ()
        known = ("clusterE", "clusterEta", "clusterPhi", "truthPdgId")
        for here, chunk in self._scan_chosen(
            (*known, *self.scalars, *self._moment_columns, *columns)
        ):
            self._centre[here] = self._window.central_cell(chunk["clusterEta"], chunk["clusterPhi"])
            if self._points:
                self._barycentre[here, 0] = chunk["clusterEta"]
                self._barycentre[here, 1] = chunk["clusterPhi"]
            self._norm[here], self._em[here] = chunk["clusterE"], is_em(chunk["truthPdgId"])
            for i, name in enumerate(self.scalars):
                self._scalar_input[here, i] = scaled(name, chunk[name])
            for i, name in enumerate(self._moment_columns):
                self._moments[here, i] = chunk[name]
            if self.target:
                e_true[here] = self.target.energy_true(chunk)
        if self.target:
            # a cluster without a target is told before the training
            self.target.encode(e_true, self._norm)
            self._e_true = e_true.astype(np.float32)
            self.weights = (
                (self.weights * flat_weights(e_true, self._em)).astype(np.float32)
                if self.target.flat
                else self.weights
            )

    def _scan_chosen(
        self, columns: Sequence[str]
    ) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
        """Scalars of the chosen clusters chunk by chunk, with their place among all chosen ones."""
        first = 0
        for chunk in self._source.scan(tuple(dict.fromkeys(columns))):
            last = first + len(chunk[columns[0]])
            start, stop = np.searchsorted(self.rows, (first, last)).tolist()
            own = self.rows[start:stop] - first
            yield slice(start, stop), {name: array[own] for name, array in chunk.items()}
            first = last

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_window", "_points", "_order")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_geometry()
        self.set_epoch(self.epoch)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.n_clusters // self.batch_size)

    @property
    def n_clusters(self) -> int:
        """Clusters in an epoch."""
        return len(self.rows)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input without the batch axis."""
        extra = {"scalars": (len(self.scalars),)} if self.scalars else {}
        moments = INPUT_SHAPES["moments"] if self._moment_columns else {}
        return INPUT_SHAPES[self.kind] | extra | moments

    @property
    def labels(self) -> NDArray[np.float32]:
        """Labels (n_clusters, 2) = [charged, neutral] of the chosen clusters in the order of the
        files.
        """
        return one_hot(self._em)

    def _answers(
        self, chosen: NDArray[np.integer], norm: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """What a network should say: classes (n, 2), target (n, 1), or both (n, 3); norm is
        clusterE, which augmentation changes.
        """
        if self.target is None:
            return one_hot(self._em[chosen])
        y = self.target.encode(self._e_true[chosen], norm).astype(np.float32)[:, None]
        return (
            np.concatenate([one_hot(self._em[chosen]), y], axis=1) if self.target.with_class else y
        )

    def column(self, name: str) -> NDArray[Any]:
        """A scalar of the chosen clusters in the order of the files, which is that of the batches
        with shuffle=False.
        """
        return np.concatenate([chunk[name] for _, chunk in self._scan_chosen((name,))])

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0; for a training that is taken up again."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        self._order = (
            self._source.shuffled(self.rows, rng)
            if self.shuffle
            else np.arange(self.n_clusters, dtype=row_type(self.n_clusters))
        )

    def on_epoch_end(self) -> None:
        """Called by Keras after each epoch, and once before a fit or an evaluation: the next
        order.
        """
        self.set_epoch(self.epoch + 1)

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index` of the present epoch."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self.batch(self._order[index * self.batch_size : (index + 1) * self.batch_size])

    def batch(self, chosen: NDArray[np.integer]) -> Batch:
        """Inputs and labels of some of the chosen clusters, counted in the order of the files."""
        inputs, norm = self._cell_inputs(chosen)
        if self.scalars:
            inputs["scalars"] = self._scalar_input[chosen]
            if self.augment is not None and "clusterE" in self.scalars:
                inputs["scalars"][:, self.scalars.index("clusterE")] = scaled("clusterE", norm)
        if self._moment_columns:
            inputs["moments"] = self._moments[chosen]
        answers = self._answers(chosen, norm)
        return (inputs, answers, self.weights[chosen]) if self.weighted else (inputs, answers)

    def _cell_inputs(
        self, chosen: NDArray[np.integer]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
        """Images or points of some of the chosen clusters, and their energies, which images are
        divided by and augmentation changes.
        """
        n, norm = len(chosen), self._norm[chosen].astype(np.float64)
        if self.kind == "moments":
            return {}, norm
        n_channels = 2 if self.kind == WITH_SIGNIFICANCE else 1
        pixels = np.empty((n_channels, n, self._window.n_pixels), dtype=np.float32)
        points = np.zeros((n * bool(self._points), N_POINTS, len(POINT_FEATURES)), dtype=np.float32)
        centre, sigma = self._centre[chosen].astype(np.int64), self._source.geo.sigma
        rng = (
            np.random.default_rng([self.seed, self.epoch, int(chosen[0])]) if self.augment else None
        )
        for part in self._source.cells(self.rows[chosen]):
            place, energy = part.place, part.energy
            if self.augment and rng:
                energy, factor = augment_cells(
                    part.offsets, energy, sigma[part.cell], self.augment, rng
                )
                norm[place] *= factor[part.row]
            cells = (place, part.row, part.offsets, part.cell)
            if self._points:
                self._points.fill(points, *cells, energy, *self._barycentre[chosen[place]].T)
                continue
            self._window.fill(pixels[0], *cells, energy, centre[place], norm[place])
            for channel in pixels[1:]:
                self._window.fill(
                    channel, *cells, energy / sigma[part.cell], centre[place], np.ones(len(place))
                )
        if self._points:
            return {"points": points}, norm
        if "pixels" in INPUT_SHAPES[self.kind]:  # the rows of pixels are the input: no copy
            return {"pixels": pixels[0]}, norm
        images, *significance = map(self._window.split, pixels)
        return build_inputs(images, self.kind, significance=next(iter(significance), None)), norm


class MixedStream(keras.utils.PyDataset):
    """One batch of each stream side by side; the batch sizes of the streams set the shares.

    An epoch is one pass over the first stream. The others start again, in a new order, as often as
    is needed; their order depends on seed and epoch alone.

    Parameters
    ----------
    streams : sequence of ClusterStream
        With the same inputs and targets; shuffled ones.

    Raises
    ------
    ConfigError
        If there is no stream, or inputs or weights differ.
    """

    def __init__(self, streams: Sequence[ClusterStream]) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        kinds = [(stream.input_shapes, stream.weighted, stream.target) for stream in streams]
        if not streams or any(kind != kinds[0] for kind in kinds):
            raise ConfigError(
                "the streams of a mixture must have the same inputs, targets and kind of weights"
            )
        self.streams = tuple(streams)
        self.batch_size = sum(stream.batch_size for stream in streams)
        self.set_epoch(0)

    @property
    def n_clusters(self) -> int:
        """Clusters in an epoch."""
        others = sum(stream.batch_size for stream in self.streams[1:])
        return self.streams[0].n_clusters + others * len(self)

    def __len__(self) -> int:
        return len(self.streams[0])

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        self.epoch = epoch
        for stream in self.streams:
            stream.set_epoch(epoch)
        self._orders = []  # clusters of each later stream, repeated until they suffice
        for place, stream in enumerate(self.streams[1:], 1):
            rng = np.random.default_rng([stream.seed, epoch, place])
            wanted = len(self) * stream.batch_size
            rounds = -(-wanted // stream.n_clusters)
            order = np.concatenate([rng.permutation(stream.n_clusters) for _ in range(rounds)])
            self._orders.append(order[:wanted])

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index` of the present epoch."""
        first = self.streams[0][index]
        rest = [
            stream.batch(order[index * stream.batch_size : (index + 1) * stream.batch_size])
            for stream, order in zip(self.streams[1:], self._orders, strict=True)
        ]
        parts = [first, *rest]
        inputs = {name: np.concatenate([part[0][name] for part in parts]) for name in first[0]}
        return inputs, *(np.concatenate([part[i] for part in parts]) for i in range(1, len(first)))  # type: ignore[return-value]


def one_hot(em: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Labels of the softmax: [charged, neutral], shape (n, 2).

    >>> one_hot(np.array([True, False])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return np.equal(em[:, None], [False, True]).astype(np.float32)


def scaled(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Energies as log10 of GeV, anything else as it is."""
    return (log10_floor(values) if COLUMNS[name].unit == "GeV" else values).astype(np.float32)
