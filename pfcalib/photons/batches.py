"""Batches of images to train on: noise and pile-up dealt anew each epoch, reflections, and faults.

Faults stand for the clusters that a detector in use gives: cells that are dead, a stripe without
read-out, an image shifted by a cell, a cluster cut at the edge of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.photons.pairs import F32, N_PIXELS, SHAPES, SLICES, Pairs

FAULTS = ("dead cells", "dead stripe", "shifted", "cut")
# of the layers whose images faults touch, cells of the layer a cell of EMB2 in eta and in phi
_PER_CELL = {"EMB1": (8.0, 0.25), "EMB2": (1.0, 1.0), "EMB3": (0.5, 1.0)}


def reflection(*, eta: bool, phi: bool) -> NDArray[np.int64]:
    """Which pixel comes where when an image is mirrored, shape (N_PIXELS,)."""
    parts = []
    for name, shape in SHAPES.items():
        places = np.arange(N_PIXELS)[SLICES[name]].reshape(shape)
        parts.append(places[:: -1 if eta else 1, :: -1 if phi else 1].ravel())
    return np.concatenate(parts)


REFLECTIONS = np.stack([reflection(eta=e, phi=p) for e in (False, True) for p in (False, True)])


def spoil(pixels: F32, rng: np.random.Generator, *, faults: Sequence[str] = FAULTS) -> F32:
    """A copy of images, each with one of the faults.

    Parameters
    ----------
    pixels : ndarray, shape (n, N_PIXELS), GeV
    rng : numpy.random.Generator
    faults : sequence of str
        Of FAULTS, each as likely: one to three dead cells of EMB2 near the middle with the strips
        in front of them; a stripe of cells in phi that is dead in all layers; all images shifted by
        a cell of EMB2 in eta or phi; everything beyond a line in eta or phi lost.

    Raises
    ------
    ConfigError
        If a fault is unknown.
    """
    if unknown := set(faults) - set(FAULTS):
        raise ConfigError(f"unknown faults {sorted(unknown)}; there are {', '.join(FAULTS)}")
    spoiled, kinds = pixels.copy(), rng.integers(len(faults), size=len(pixels))
    for row, kind in enumerate(kinds):
        images = {name: spoiled[row, SLICES[name]].reshape(SHAPES[name]) for name in _PER_CELL}
        _FAULT[faults[kind]](images, rng)
    return spoiled


def _dead_cells(images: dict[str, F32], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 4)):
        eta, phi = rng.integers(2, 5), rng.integers(3, 8)
        images["EMB2"][eta, phi] = 0.0
        images["EMB1"][8 * eta : 8 * eta + 8, (phi - 5 + 6) // 4] = 0.0


def _dead_stripe(images: dict[str, F32], rng: np.random.Generator) -> None:
    eta = rng.integers(2, 5)
    for name, (per_eta, _) in _PER_CELL.items():
        first = int(eta * per_eta)
        images[name][first : first + max(int(per_eta), 1)] = 0.0


def _shifted(images: dict[str, F32], rng: np.random.Generator) -> None:
    axis, sign = int(rng.integers(2)), int(rng.choice((-1, 1)))
    for name, per_cell in _PER_CELL.items():
        # half a cell of EMB3 and a quarter of one of EMB1 are a whole one as often
        step = per_cell[axis]
        whole = int(step) + (rng.random() < step % 1.0)
        if whole:
            moved = np.roll(images[name], sign * whole, axis=axis)
            edge = slice(0, whole) if sign > 0 else slice(-whole, None)
            moved[(slice(None), edge) if axis else edge] = 0.0
            images[name][:] = moved


def _cut(images: dict[str, F32], rng: np.random.Generator) -> None:
    axis, from_end = int(rng.integers(2)), bool(rng.integers(2))
    lost = int(rng.integers(2, 4) if axis == 0 else rng.integers(3, 6))  # cells of EMB2
    for name, per_cell in _PER_CELL.items():
        n = round(lost * per_cell[axis])
        edge = slice(-n, None) if from_end else slice(0, n)
        if n:
            images[name][(slice(None), edge) if axis else edge] = 0.0


_FAULT: dict[str, Callable[[dict[str, F32], np.random.Generator], None]] = {
    "dead cells": _dead_cells, "dead stripe": _dead_stripe, "shifted": _shifted, "cut": _cut,
}  # fmt: skip


class PhotonBatches(keras.utils.PyDataset):
    """Batches of (inputs, answers, weights) of pairs.

    Parameters
    ----------
    pairs : Pairs
    answers : ndarray, shape (n, n_answers) float32, or callable
        Classes; or what makes of pixels without pile-up, as they are mirrored, what is learned.
    mus : tuple of float
        Of the pairs.
    choose : sequence of float
        Mean numbers of collisions, of which each image is given one by chance in every epoch.
    with_mu : bool
        Whether the network is told it, as input "mu".
    unhealthy : float
        Share of the images that are spoilt.
    faults : sequence of str
        See `spoil`.
    weights : ndarray, shape (n,), optional
    batch_size, seed : int
    shuffle : bool
        For training: each epoch in a new order, with the noise and the pile-up of others, mirrored
        by chance in eta and phi, which the detector does not tell apart. Else images are as they
        are and choices always the same.
    """

    def __init__(
        self, pairs: Pairs, answers: F32 | Callable[[F32], F32], *, mus: tuple[float, ...],
        choose: Sequence[float], with_mu: bool = False, unhealthy: float = 0.0,
        faults: Sequence[str] = FAULTS, weights: NDArray[np.floating] | None = None,
        batch_size: int = 256, seed: int = 1, shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(workers=1, use_multiprocessing=False)
        self.pairs, self.answers, self.mus, self.choose = pairs, answers, mus, tuple(choose)
        self.with_mu, self.unhealthy, self.faults = with_mu, unhealthy, faults
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.n_clusters = len(pairs.signal)
        self.weights = np.ones(self.n_clusters) if weights is None else weights
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order and choices of that epoch, counted from 0."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch if self.shuffle else 0))
        n = self.n_clusters
        self.order = rng.permutation(n) if self.shuffle else np.arange(n)
        self.chosen = rng.integers(len(self.choose), size=n)
        self.mirror = rng.integers(len(REFLECTIONS), size=n) * self.shuffle
        self.spoilt = rng.random(n) < self.unhealthy
        # whose noise and pile-up each image is given
        self.others = np.stack([rng.permutation(n) for _ in range(2)])
        if not self.shuffle:
            self.others[:] = np.arange(n)

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.n_clusters // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, F32], F32, F32]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        mirror = REFLECTIONS[self.mirror[rows]]
        noise, pileup = self.others[:, rows]
        clean = self.pairs.signal[rows] + self.pairs.noise[noise]
        clean = np.take_along_axis(clean, mirror, axis=1)
        mu = np.asarray(self.choose, np.float32)[self.chosen[rows]]
        pixels = clean.copy()
        for value in set(self.choose) - {0.0}:
            here = mu == value
            added = self.pairs.pileup[self.mus.index(value), pileup[here]]
            pixels[here] += np.take_along_axis(added, mirror[here], axis=1)
        spoilt = self.spoilt[rows]
        if spoilt.any():
            rng = np.random.default_rng((self.seed, self.epoch if self.shuffle else 0, 1, index))
            pixels[spoilt] = spoil(pixels[spoilt], rng, faults=self.faults)
        inputs = {"pixels": pixels} | ({"mu": mu[:, None]} if self.with_mu else {})
        answers = self.answers(clean) if callable(self.answers) else self.answers[rows]
        return inputs, answers, self.weights[rows].astype(np.float32)
