"""Everything that Pythia 8 says of events: particles, their ancestors, and where they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numba import njit
from numpy.typing import NDArray
from particle import PDGID

from pfcalib.errors import ConfigError
from pfcalib.simulation.pythia import require_pythia

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def start_generator(settings: Sequence[str], seed: int) -> Any:
    """Pythia with settings, at the beginning of its stream.

    Parameters
    ----------
    settings : sequence of str
        As ``Pythia.readString`` takes them, the energy of the beams among them.
    seed : int
        1 to 900,000,000.

    Raises
    ------
    ConfigError
        If Pythia is missing or does not start.
    """
    require_pythia()
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    quiet = ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}")
    refused = [setting for setting in (*settings, *quiet) if not pythia.readString(setting)]
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start with {', '.join(settings)}; refused: {refused}")
    return pythia


class Record(NamedTuple):
    """All particles of events, of shape (n,) each unless said otherwise."""

    offsets: IntArray  # (n_events + 1,)
    event: IntArray
    pdg_id: IntArray
    status: IntArray
    mother: IntArray  # place in the event
    daughters: IntArray  # (n, 2) first and last place in the event
    momentum: FloatArray  # (n, 3) GeV
    energy: FloatArray  # GeV
    position: FloatArray  # (n, 3) mm where it is made

    @classmethod
    def read(cls, events: ak.Array) -> Record:
        """The record of ``Pythia.nextBatch``."""
        particles = events.prt

        def flat(column: ak.Array) -> NDArray[Any]:
            return ak.to_numpy(ak.flatten(column))

        n = ak.to_numpy(ak.num(particles.id))
        made = particles.vProd
        place = [flat(ak.fill_none(made[x], 0.0, axis=1)) for x in ("px", "py", "pz")]
        return cls(
            np.append(0, np.cumsum(n)),
            np.repeat(np.arange(len(n)), n),
            flat(particles.id).astype(np.int64),
            flat(particles.status).astype(np.int64),
            flat(particles.mother1).astype(np.int64),
            np.column_stack([flat(particles[f"daughter{i}"]) for i in (1, 2)]).astype(np.int64),
            np.column_stack([flat(particles.p[x]) for x in ("px", "py", "pz")]),
            flat(particles.p.e),
            np.column_stack(place),
        )


@njit(cache=True)
def hadron_flavour(pdg_id):  # type: ignore[no-untyped-def]
    """5 or 4 for a hadron whose heaviest quark is b or c, 1 for others, 0 for what is no hadron;
    quarkonia count among the others.
    """
    n = abs(pdg_id)
    if n < 100 or n // 10 % 10 == 0 or n > 1_000_000_000:
        return 0
    q1, q2, q3 = n // 1000 % 10, n // 100 % 10, n // 10 % 10
    if q1 == 0 and q2 == q3:
        return 1
    heaviest = max(q1, q2)
    return heaviest if heaviest in (4, 5) else 1


def charges(pdg_id: IntArray) -> FloatArray:
    """In units of that of the proton, by the numbering alone, shape (n,)."""
    kinds, kind = np.unique(pdg_id, return_inverse=True)
    return np.array([float(PDGID(int(x)).charge or 0.0) for x in kinds])[kind]
