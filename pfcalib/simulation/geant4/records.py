"""What the scorers note of one event, and the energy that counts in the balance."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

NEUTRINOS = frozenset((12, 14, 16, -12, -14, -16))
NEUTRAL_PIONS = frozenset((111, 221))  # pi0 and eta
# layer, deposit, x, y, z, 1 for electrons and photons and 0 for others, time, step length (0 for
# neutral particles)
ACTIVE_COLUMNS = 8
PASSIVE_COLUMNS = 6  # the first six of these
BALANCE_COLUMNS = 6  # layer, energy, x, y, z, 1 for escaped and 0 for invisible


class Stopped:
    """A hadron or muon at rest, and what is left of its rest energy once its descendants are
    known.
    """

    def __init__(self, layer: int, point: Any, energy: float) -> None:
        self.layer, self.energy, self.escaped = layer, energy, 0.0  # MeV
        self.x, self.y, self.z = point.x, point.y, point.z


class Records(NamedTuple):
    """Numbers of the present event in MeV, mm and ns: flat arrays of doubles that the callbacks
    extend, and particles at rest.
    """

    active: array[float]
    passive: array[float]
    balance: array[float]
    leak: array[float]
    neutral: array[float]  # energy of each pi0 and eta made
    stopped: dict[int, Stopped]  # by number of the track

    def clear(self) -> None:
        """Forget the event."""
        for numbers in (self.active, self.passive, self.balance, self.leak, self.neutral):
            del numbers[:]
        self.stopped.clear()

    def settle(self) -> None:
        """Balance the particles at rest, now that all their descendants are known."""
        for each in self.stopped.values():
            self.balance.extend((each.layer, each.energy, each.x, each.y, each.z, 0.0))
            self.balance.extend((each.layer, each.escaped, each.x, each.y, each.z, 1.0))
        self.stopped.clear()


def new_records() -> Records:
    """Empty records."""
    return Records(array("d"), array("d"), array("d"), array("d"), array("d"), {})


class MeasurableEnergy:
    """What a particle brings besides its kinetic energy, in MeV, so that sums are conserved but for
    nuclear binding.

    Nucleons, nuclei and electrons bring nothing more; their antiparticles 2 m; hyperons what they
    weigh more than a nucleon; mesons, muons, photons and neutrinos their mass.
    """

    def __init__(self, nucleon: float) -> None:
        self._nucleon = nucleon  # MeV, mass
        self._rest: dict[int, float] = {}

    def rest(self, definition: Any) -> float:
        """Rest part of a `G4ParticleDefinition` in MeV."""
        code = definition.GetPDGEncoding()
        found = self._rest.get(code)
        if found is None:
            mass, number = definition.GetPDGMass(), definition.GetBaryonNumber()
            if code in (11, 2112, 2212) or number > 1:
                found = 0.0
            elif code in (-11, -2112, -2212) or number < -1:
                found = 2.0 * mass
            else:
                found = mass - number * self._nucleon
            self._rest[code] = found
        return found
