"""What is noted of each step: deposits by place, the energy balance of hadrons, and what leaves.

Geant4 calls Python only for steps that deposit energy (`G4PSEnergyDeposit` asks for an index only then) and, behind a particle filter, for
steps of hadrons, muons and neutrinos. Callbacks append plain numbers; `pfcalib.simulation.geant4.cells` makes cells of them once an event.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from pfcalib.simulation.geant4.slice import Volumes

NEUTRINOS = frozenset((12, 14, 16, -12, -14, -16))
NEUTRAL_PIONS = frozenset((111, 221))  # pi0 and eta
ACTIVE_COLUMNS = 8  # layer, deposit, x, y, z, 1 for electrons and 0 for others, time, step length (0 for neutral particles)
PASSIVE_COLUMNS = 6  # the first six of these
BALANCE_COLUMNS = 6  # layer, energy, x, y, z, 1 for escaped and 0 for invisible
ENDED = (2, 3)  # fStopAndKill and fKillTrackAndSecondaries
_TINY = 1e-6  # MeV, below which a balance is rounding
_SHORTEST = 1e-12  # ns; what lives shorter is never tracked


class Records(NamedTuple):
    """Numbers of the present event in MeV, mm and ns: flat arrays of doubles that the callbacks extend."""

    active: array[float]
    passive: array[float]
    balance: array[float]
    leak: array[float]
    neutral: array[float]  # energy of each pi0 and eta made

    def clear(self) -> None:
        """Forget the event."""
        for numbers in self:
            del numbers[:]


def new_records() -> Records:
    """Empty records."""
    return Records(*(array("d") for _ in Records._fields))


class MeasurableEnergy:
    """What a particle brings besides its kinetic energy, in MeV, so that sums are conserved but for nuclear binding.

    Nucleons, nuclei and electrons bring nothing more; their antiparticles 2 m; hyperons what they weigh more than a nucleon; mesons, muons,
    photons and neutrinos their mass.
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


def balanced_particles() -> list[Any]:
    """Definitions of all particles that are tracked but electrons, positrons and photons, the frequent ones first."""
    import geant4_pybind as g4

    table = g4.G4ParticleTable.GetParticleTable()
    first = [table.FindParticle(name) for name in ("neutron", "proton", "pi-", "pi+", "pi0", "deuteron", "alpha", "mu-", "mu+")]
    known = {definition.GetParticleName() for definition in first}
    rest = [table.GetParticle(i) for i in range(table.entries())]
    kinds = ("meson", "baryon", "lepton", "nucleus", "anti_nucleus")
    lasting = (p for p in rest if p.GetParticleType() in kinds and (p.GetPDGStable() or p.GetPDGLifeTime() > _SHORTEST))
    return first + [p for p in lasting if p.GetParticleName() not in known and abs(p.GetPDGEncoding()) != 11]


def electron_scorer(name: str, layer: int, column: array[float], *, is_active: bool) -> Any:
    """Scorer of what electrons and positrons deposit; to be filtered."""
    import geant4_pybind as g4

    extend = column.extend
    getters: list[Any] = []  # Geant4 has one step, refilled again and again: its getters are bound once

    class ElectronScorer(g4.G4VPrimitiveScorer):  # type: ignore[misc]
        def Initialize(self, collections: Any) -> None:
            """Nothing is kept in Geant4's collections."""

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if not getters:
                pre = step.GetPreStepPoint()
                getters.extend((pre.GetPosition, step.GetTotalEnergyDeposit, pre.GetGlobalTime, step.GetStepLength))
            position, deposit, time, length = getters
            point = position()
            if is_active:
                extend((layer, deposit(), point.x, point.y, point.z, 1.0, time(), length()))
            else:
                extend((layer, deposit(), point.x, point.y, point.z, 1.0))
            return True

    return ElectronScorer(name)


def hadron_scorer(name: str, layer: int, records: Records, energy: MeasurableEnergy, *, is_active: bool, balance: bool) -> Any:
    """Scorer of all others but photons: what they deposit, make invisible, give to neutrinos, and make of pi0 and eta; to be filtered.

    Invisible is the measurable energy before, less that after, the deposit, and that of all secondaries; what is stopped without descendants,
    such as a neutron after the tracking cut, is lost where it ends.
    """
    import geant4_pybind as g4

    column = (records.active if is_active else records.passive).extend
    balance_step = _balance(layer, records, energy)
    getters: list[Any] = []

    class HadronScorer(g4.G4VPrimitiveScorer):  # type: ignore[misc]
        def Initialize(self, collections: Any) -> None:
            """Nothing is kept in Geant4's collections."""

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if not getters:
                pre, post = step.GetPreStepPoint(), step.GetPostStepPoint()
                getters.extend((step.GetTotalEnergyDeposit, step.GetNumberOfSecondariesInCurrentStep, pre.GetKineticEnergy, post.GetKineticEnergy))
                getters.append(pre)
            energy_deposit, n_secondaries, before, after, pre = getters
            deposit, made = energy_deposit(), n_secondaries()
            if deposit > 0.0:
                point = pre.GetPosition()
                if is_active:
                    length = step.GetStepLength() if pre.GetCharge() != 0.0 else 0.0
                    column((layer, deposit, point.x, point.y, point.z, 0.0, pre.GetGlobalTime(), length))
                else:
                    column((layer, deposit, point.x, point.y, point.z, 0.0))
            if balance:
                lost = before() - after() - deposit
                status = int(step.GetTrack().GetTrackStatus())
                if made or status > 1 or abs(lost) > _TINY:
                    balance_step(step, lost, made, status)
            return True

    return HadronScorer(name)


def _balance(layer: int, records: Records, energy: MeasurableEnergy) -> Callable[[Any, float, int, int], None]:
    extend, neutral, rest = records.balance.extend, records.neutral.append, energy.rest

    def balance_step(step: Any, lost: float, n_secondaries: int, status: int) -> None:
        post, escaped = step.GetPostStepPoint(), 0.0
        if status in ENDED:
            definition = step.GetTrack().GetDefinition()
            if definition.GetPDGEncoding() in NEUTRINOS:
                return
            lost += post.GetKineticEnergy() + rest(definition)
        if n_secondaries:
            for secondary in step.GetSecondaryInCurrentStep():
                definition, kinetic = secondary.GetDefinition(), secondary.GetKineticEnergy()
                code = definition.GetPDGEncoding()
                lost -= kinetic + rest(definition)
                if code in NEUTRINOS:
                    escaped += kinetic
                elif code in NEUTRAL_PIONS:
                    neutral(kinetic + definition.GetPDGMass())
        point = post.GetPosition()
        if abs(lost) > _TINY:
            extend((layer, lost, point.x, point.y, point.z, 0.0))
        if escaped > 0.0:
            extend((layer, escaped, point.x, point.y, point.z, 1.0))

    return balance_step


def exit_detector(records: Records, energy: MeasurableEnergy) -> Any:
    """Sensitive detector around the hall: notes what leaves the world, but for neutrinos."""
    import geant4_pybind as g4

    class ExitDetector(g4.G4VSensitiveDetector):  # type: ignore[misc]
        def ProcessHits(self, step: Any, history: Any) -> bool:
            post, definition = step.GetPostStepPoint(), step.GetTrack().GetDefinition()
            if post.GetStepStatus() == g4.G4StepStatus.fWorldBoundary and definition.GetPDGEncoding() not in NEUTRINOS:
                records.leak.append(post.GetKineticEnergy() + energy.rest(definition))
            return True

    return ExitDetector("exit")


class Scorers(NamedTuple):
    """All scorers of a detector; the references keep them alive."""

    detectors: tuple[Any, ...]
    kept: tuple[Any, ...]


def attach_scorers(construction: Any, volumes: Volumes, records: Records, *, calibration_truth: bool) -> Scorers:
    """Make the volumes sensitive; to be called from `ConstructSDandField`."""
    import geant4_pybind as g4

    manager = g4.G4SDManager.GetSDMpointer()
    energy = MeasurableEnergy(g4.G4ParticleTable.GetParticleTable().FindParticle("proton").GetPDGMass())
    particles = balanced_particles()
    electrons, others = g4.G4SDParticleFilter("electrons"), g4.G4SDParticleFilter("others", particles)
    for name in ("e-", "e+"):
        electrons.add(name)
    detectors: dict[tuple[int, bool], Any] = {}
    kept: list[Any] = [electrons, others, energy, *particles]
    for layer, is_active, logical in volumes.parts:
        if not (is_active or calibration_truth):
            continue
        if (layer, is_active) not in detectors:
            detector = g4.G4MultiFunctionalDetector(f"layer{layer}_{'active' if is_active else 'passive'}")
            first = electron_scorer("electrons", layer, records.active if is_active else records.passive, is_active=is_active)
            second = hadron_scorer("others", layer, records, energy, is_active=is_active, balance=calibration_truth)
            manager.AddNewDetector(detector)
            for scorer, chosen in ((first, electrons), (second, others)):
                scorer.SetFilter(chosen)
                detector.RegisterPrimitive(scorer)
            kept.extend((first, second))
            detectors[layer, is_active] = detector
        construction.SetSensitiveDetector(logical, detectors[layer, is_active])
    if calibration_truth:
        kept.append(exit_detector(records, energy))
        manager.AddNewDetector(kept[-1])
        construction.SetSensitiveDetector(volumes.outside, kept[-1])
    return Scorers(tuple(detectors.values()), tuple(kept))
