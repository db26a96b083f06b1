"""Batches for generators: rows of a sample with random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.training.fit import ArrayBatches


class NoisyBatches(ArrayBatches):
    """Batches of rows with random numbers, drawn anew in each epoch, the same for the same seed.

    Parameters
    ----------
    n_rows : int
    batch_size, seed : int
    fixed : bool
        All epochs are the first one, for validation.
    """

    def __init__(self, n_rows: int, *, batch_size: int, seed: int, fixed: bool = False) -> None:
        self.fixed = fixed
        super().__init__(({}, np.empty(n_rows)), batch_size=batch_size, seed=seed, shuffle=True)

    def set_epoch(self, epoch: int) -> None:
        """Order and random numbers of that epoch."""
        super().set_epoch(0 if self.fixed else epoch)

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.draw(rows, np.random.default_rng((self.seed, self.epoch, 1 + index)))

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Any:
        """Inputs and answers of some rows."""
        raise NotImplementedError
