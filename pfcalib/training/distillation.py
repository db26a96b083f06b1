"""Small networks that learn from a large one: their targets are its answers, probabilities or
energies, in place of the truth (arXiv:1503.02531).

What a teacher says of a cluster is smoother than its label, and a regression without the
fluctuations of the deposit; so a student needs fewer weights than a network of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import locked
from pfcalib.errors import ConfigError
from pfcalib.training.fit import Say, fit_model
from pfcalib.training.networks import (
    Network,
    NetworkConfig,
    Paths,
    apply_network,
    build_network,
    network_folder,
    open_stream,
)
from pfcalib.training.stream import ClusterStream

HEADS = ("classes", "energy", "class_and_energy")  # whose answers are targets


class TaughtStream(keras.utils.PyDataset):
    """Batches of a stream with answers in place of its labels, in an order of its own.

    Parameters
    ----------
    stream : ClusterStream
        Not augmented: the teacher has seen the clusters as they are.
    answers : array of float32, shape (n_clusters, n_outputs)
        Of the clusters in the order of the files.
    shuffle : bool
        A new order each epoch, by the seed of the stream and the epoch.
    """

    def __init__(
        self, stream: ClusterStream, answers: NDArray[np.float32], *, shuffle: bool
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.stream, self.answers, self.shuffle = stream, answers, shuffle
        self.set_epoch(0)

    @property
    def n_clusters(self) -> int:
        """Clusters in an epoch."""
        return self.stream.n_clusters

    def __len__(self) -> int:
        return len(self.stream)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        self.epoch = epoch
        order = np.arange(self.n_clusters)
        rng = np.random.default_rng([self.stream.seed, epoch])
        self._order = rng.permutation(order) if self.shuffle else order

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Batch number `index` of the present epoch."""
        size = self.stream.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        inputs, _, *weights = self.stream.batch(chosen)
        return inputs, self.answers[chosen], *weights


def fit_student(
    paths: Paths,
    config: NetworkConfig,
    teacher: Network,
    *,
    say: Say | None = None,
    folder: Path | None = None,
) -> Network:
    """Train a network on the answers of another one, or take it from its folder; it is validated on
    them too.

    Parameters
    ----------
    paths : path-like or sequence of them
        ROOT samples, as of `training.networks.fit_network`.
    config : NetworkConfig
        Of the student, with the head and the target of the teacher, whatever its inputs; its
        selection is taken, all clusters, and none is augmented.
    teacher : Network
    say, folder
        See `training.networks.fit_network`.

    Raises
    ------
    ConfigError
        If head or target differ from those of the teacher, the head says more than its targets
        hold, or the configuration asks for a share of the clusters or for augmentation.
    """
    if (config.head, config.target) != (teacher.config.head, teacher.config.target):
        raise ConfigError(
            f"a student with head {config.head!r} and target {config.target} cannot learn from a "
            f"teacher with {teacher.config.head!r} and {teacher.config.target}"
        )
    if config.head not in HEADS:
        raise ConfigError(
            f"answers of head {config.head!r} are no targets, expected one of {', '.join(HEADS)}"
        )
    if config.augment is not None or config.n_clusters is not None:
        raise ConfigError("a student takes all clusters as they are: no augment, no n_clusters")
    if folder is None:
        folder = network_folder(paths, config, start=teacher)
        folder = folder.with_name(f"{folder.name}-student")
    with locked(folder):
        training, held_out = (
            _taught(paths, config, teacher, split) for split in ("train", "validation")
        )
        model = build_network(config, training.stream)
        result = fit_model(model, training, held_out, config.train, out_dir=folder, say=say)
    return Network(config, model, result, folder)


def _taught(paths: Paths, config: NetworkConfig, teacher: Network, split: str) -> TaughtStream:
    """Clusters of a split as the student sees them, with what the teacher says of them."""
    shuffle = split == "train"
    stream = open_stream(
        paths, config, split=split, shuffle=shuffle, batch_size=config.train.batch_size
    )
    # the same clusters, in the order of the files
    train = replace(teacher.config.train, seed=config.train.seed)
    as_teacher = replace(teacher.config, select=config.select, train=train)
    answers = apply_network(teacher, open_stream(paths, as_teacher, split=split))
    return TaughtStream(stream, answers, shuffle=shuffle)
