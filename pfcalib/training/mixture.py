"""Batches that mix clusters of several samples, whatever their cells: for trainings on more than
one simulation or noise setting.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from pfcalib.errors import ConfigError
from pfcalib.training.stream import Batch, ClusterStream


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
        self._orders = [
            self._order(stream, epoch, place) for place, stream in enumerate(self.streams)
        ]

    def _order(self, stream: ClusterStream, epoch: int, place: int) -> np.ndarray:
        """Clusters of a later stream in the order of an epoch, repeated until they suffice."""
        if place == 0:
            return np.zeros(0, dtype=np.int64)
        rng = np.random.default_rng([stream.seed, epoch, place])
        wanted = len(self) * stream.batch_size
        rounds = [
            rng.permutation(stream.n_clusters) for _ in range(-(-wanted // stream.n_clusters))
        ]
        return np.concatenate(rounds)[:wanted]

    def on_epoch_end(self) -> None:
        """The next epoch."""
        self.set_epoch(self.epoch + 1)

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index` of the present epoch."""
        first = self.streams[0][index]
        rest = [
            stream.batch(order[index * stream.batch_size : (index + 1) * stream.batch_size])
            for stream, order in zip(self.streams[1:], self._orders[1:], strict=True)
        ]
        parts = [first, *rest]
        inputs = {name: np.concatenate([part[0][name] for part in parts]) for name in first[0]}
        return inputs, *(np.concatenate([part[i] for part in parts]) for i in range(1, len(first)))  # type: ignore[return-value]
