"""Hits: what showers leave in the cells of a batch of events, with the calibration truth, before
noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TRUTH = ("em", "non_em", "invisible", "escaped")


class Hits(NamedTuple):
    """Jagged cells of a batch of events; the hits of event i are ``offsets[i]:offsets[i + 1]``,
    sorted by cell.

    The truth adds up to the energy that was shot: the four components over the cells plus
    ``e_dead`` plus ``e_leak`` equal ``e_total``.
    """

    offsets: NDArray[np.int64]  # (n_events + 1,)
    cell: NDArray[np.int32]  # (n_hits,) flat index in the grid
    signal: NDArray[np.float64]  # (n_hits,) GeV at the EM scale, without noise
    em: NDArray[np.float64]  # (n_hits,) GeV deposited by electrons and photons
    non_em: NDArray[np.float64]  # (n_hits,) GeV deposited by the ionisation of hadrons
    invisible: NDArray[np.float64]  # (n_hits,) GeV lost to nuclear binding and slow neutrons
    escaped: NDArray[np.float64]  # (n_hits,) GeV carried away by neutrinos made in the cell
    e_dead: NDArray[np.float64]  # (n_events,) GeV in dead material
    e_leak: NDArray[np.float64]  # (n_events,) GeV beyond the grid or behind the calorimeter
    e_total: NDArray[np.float64]  # (n_events,) GeV that was shot into the detector
    e_pi0: NDArray[np.float64]  # (n_events,) GeV that hadronic interactions gave to neutral pions

    @property
    def n_events(self) -> int:
        return len(self.offsets) - 1

    @property
    def event(self) -> NDArray[np.int64]:
        """Event of each hit, shape (n_hits,)."""
        return np.repeat(np.arange(self.n_events), np.diff(self.offsets))


def merge_hits(chunks: list[Hits]) -> Hits:
    """Hits of consecutive batches as one batch."""
    sizes = np.concatenate([np.diff(chunk.offsets) for chunk in chunks])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rest = [np.concatenate([chunk[i] for chunk in chunks]) for i in range(1, len(Hits._fields))]
    return Hits(offsets, *rest)
