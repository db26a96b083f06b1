"""What is noted of an event: deposits by place, the energy balance of hadrons, and what leaves.

Geant4 calls Python, through filters in C++, for steps of charged particles and of neutral hadrons
only; photons are asked once, at their end. Callbacks append plain numbers;
`pfcalib.simulation.geant4.cells` makes cells of them once an event.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable
from typing import Any

from pfcalib.simulation.geant4.slice import Volumes, part_of

NEUTRINOS = frozenset((12, 14, 16, -12, -14, -16))
NEUTRAL_PIONS = frozenset((111, 221))  # pi0 and eta
# layer, deposit, x, y, z, 1 for electrons and photons and 0 for others, time, step length (0 for
# neutral particles)
ACTIVE_COLUMNS = 8
PASSIVE_COLUMNS = 6  # the first six of these
BALANCE_COLUMNS = 6  # layer, energy, x, y, z, 1 for escaped and 0 for invisible
STOPPED = 1  # fStopButAlive of G4TrackStatus
WORLD_BOUNDARY = 0  # fWorldBoundary of G4StepStatus
ENDED = (2, 3)  # fStopAndKill and fKillTrackAndSecondaries
_TINY = 1e-6  # MeV, below which a balance is rounding
_LIGHT = 1.0  # MeV; of what is charged only electrons and positrons weigh less


class Stopped:
    """A hadron or muon at rest, and what is left of its rest energy once its descendants are
    known.
    """

    def __init__(self, layer: int, point: Any, energy: float) -> None:
        self.layer, self.energy, self.escaped = layer, energy, 0.0  # MeV
        self.x, self.y, self.z = point.x, point.y, point.z


def _doubles() -> array[float]:
    return array("d")


@dataclasses.dataclass(frozen=True)
class Records:
    """Numbers of the present event in MeV, mm and ns: flat arrays of doubles that the callbacks
    extend, and particles at rest.
    """

    active: array[float] = dataclasses.field(default_factory=_doubles)
    passive: array[float] = dataclasses.field(default_factory=_doubles)
    balance: array[float] = dataclasses.field(default_factory=_doubles)
    leak: array[float] = dataclasses.field(default_factory=_doubles)
    neutral: array[float] = dataclasses.field(
        default_factory=_doubles
    )  # energy of each pi0 and eta made
    stopped: dict[int, Stopped] = dataclasses.field(default_factory=dict)  # by number of the track

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


def neutral_particles() -> list[Any]:
    """Definitions of all neutral hadrons that are tracked, the frequent ones first; excited states,
    such as N(1440), decay where they are made.
    """
    import geant4_pybind as g4

    table = g4.G4ParticleTable.GetParticleTable()
    first = ("neutron", "pi0", "kaon0L", "kaon0S", "lambda", "eta")
    chosen = {name: table.FindParticle(name) for name in first}
    for i in range(table.entries()):
        particle = table.GetParticle(i)
        name = particle.GetParticleName()
        if (
            particle.GetParticleType() in ("meson", "baryon")
            and particle.GetPDGCharge() == 0.0
            and "(" not in name
        ):
            chosen.setdefault(name, particle)
    return list(chosen.values())


def charged_scorer(
    layer: int,
    records: Records,
    energy: MeasurableEnergy,
    *,
    is_active: bool,
    balance: bool,
) -> Any:
    """Scorer of charged particles in a volume: their deposits, and the balance of each step but for
    electrons and positrons.

    Parameters
    ----------
    layer : int
        Index of the layer that the volume belongs to.
    records : Records
    energy : MeasurableEnergy
    is_active : bool
        Note time and step length as well.
    balance : bool
        Score invisible and escaped energy.
    """
    import geant4_pybind as g4

    extend = (records.active if is_active else records.passive).extend
    balance_step = _balance(layer, records, energy)
    # Geant4 has one step, filled again and again: its getters are bound once
    getters: list[Any] = []

    class ChargedScorer(g4.G4VPrimitiveScorer):
        def Initialize(self, collections: Any) -> None:
            """Nothing is kept in Geant4's collections."""

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if not getters:
                pre = step.GetPreStepPoint()
                getters.extend(
                    (
                        step.GetTotalEnergyDeposit,
                        pre.GetPosition,
                        pre.GetMass,
                        pre.GetGlobalTime,
                        step.GetStepLength,
                    )
                )
            get_deposit, get_position, get_mass, get_time, get_length = getters
            deposit, point = get_deposit(), get_position()
            electron = get_mass() < _LIGHT
            if is_active:
                extend(
                    (layer, deposit, point.x, point.y, point.z, electron, get_time(), get_length())
                )
            else:
                extend((layer, deposit, point.x, point.y, point.z, electron))
            if not electron and balance:
                balance_step(step, deposit)
            return True

    return ChargedScorer("charged")


def neutral_scorer(
    layer: int,
    records: Records,
    energy: MeasurableEnergy,
    *,
    is_active: bool,
    balance: bool,
) -> Any:
    """Scorer of neutral hadrons in a volume, most of whose steps change nothing; parameters as of
    `charged_scorer`.
    """
    import geant4_pybind as g4

    extend = (records.active if is_active else records.passive).extend
    balance_step = _balance(layer, records, energy)
    getters: list[Any] = []

    class NeutralScorer(g4.G4VPrimitiveScorer):
        def Initialize(self, collections: Any) -> None:
            """Nothing is kept in Geant4's collections."""

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if not getters:
                pre, post = step.GetPreStepPoint(), step.GetPostStepPoint()
                made = step.GetNumberOfSecondariesInCurrentStep
                getters.extend(
                    (step.GetTotalEnergyDeposit, made, pre.GetKineticEnergy, post.GetKineticEnergy)
                )
            get_deposit, get_made, get_before, get_after = getters
            deposit = get_deposit()
            # should it end a track, `end_neutral` will know
            if deposit == 0.0 and get_made() == 0 and get_before() == get_after():
                return False
            if deposit > 0.0:
                pre = step.GetPreStepPoint()
                point = pre.GetPosition()
                late = (pre.GetGlobalTime(), 0.0) if is_active else ()
                extend((layer, deposit, point.x, point.y, point.z, 0.0, *late))
            if balance:
                balance_step(step, deposit)
            return True

    return NeutralScorer("neutral")


def _balance(
    layer: int, records: Records, energy: MeasurableEnergy
) -> Callable[[Any, float], None]:
    """Function that notes what a step makes invisible, gives to neutrinos, and makes of pi0 and
    eta.

    Invisible is the measurable energy before, less that after, the deposit, and that of all
    secondaries; what is stopped without descendants, such as a neutron after the tracking cut, is
    lost where it ends.
    """
    extend, neutral, rest, stopped = (
        records.balance.extend,
        records.neutral.append,
        energy.rest,
        records.stopped,
    )

    def balance_step(step: Any, deposit: float) -> None:
        track, post = step.GetTrack(), step.GetPostStepPoint()
        lost = step.GetPreStepPoint().GetKineticEnergy() - post.GetKineticEnergy() - deposit
        made, status = step.GetNumberOfSecondariesInCurrentStep(), int(track.GetTrackStatus())
        if not (made or status or abs(lost) > _TINY):
            return
        point, escaped = post.GetPosition(), 0.0
        if status in ENDED:
            lost += post.GetKineticEnergy() + rest(track.GetDefinition())
        elif status == STOPPED:
            stopped[track.GetTrackID()] = Stopped(layer, point, rest(track.GetDefinition()))
        for secondary in step.GetSecondaryInCurrentStep() if made else ():
            definition, kinetic = secondary.GetDefinition(), secondary.GetKineticEnergy()
            code = definition.GetPDGEncoding()
            lost -= kinetic + rest(definition)
            if code in NEUTRINOS:
                escaped += kinetic
            elif code in NEUTRAL_PIONS:
                neutral(kinetic + definition.GetPDGMass())
        if abs(lost) > _TINY:
            extend((layer, lost, point.x, point.y, point.z, 0.0))
        if escaped > 0.0:
            extend((layer, escaped, point.x, point.y, point.z, 1.0))

    return balance_step


def new_track(track: Any, records: Records, energy: MeasurableEnergy) -> None:
    """Subtract a new track from the particle at rest that made it: Geant4 shows steps at rest to no
    sensitive detector.

    A secondary of the last steps in flight was counted then; it starts elsewhere.
    """
    parent = records.stopped.get(track.GetParentID())
    if parent is None:
        return
    vertex, definition = track.GetVertexPosition(), track.GetDefinition()
    if (vertex.x, vertex.y, vertex.z) != (parent.x, parent.y, parent.z):
        return
    kinetic, code = track.GetKineticEnergy(), definition.GetPDGEncoding()
    parent.energy -= kinetic + energy.rest(definition)
    if code in NEUTRINOS:
        parent.escaped += kinetic
    elif code in NEUTRAL_PIONS:
        records.neutral.append(kinetic + definition.GetPDGMass())


def end_photon(track: Any, records: Records) -> None:
    """Note what a photon deposits at its end: the binding energy of the electron that it frees."""
    step = track.GetStep()
    deposit = step.GetTotalEnergyDeposit()
    if deposit > 0.0:
        pre = step.GetPreStepPoint()
        point = step.GetPostStepPoint().GetPosition()
        layer, is_active = part_of(pre.GetTouchable().GetCopyNumber(0))
        if is_active:
            records.active.extend(
                (layer, deposit, point.x, point.y, point.z, 1.0, pre.GetGlobalTime(), 0.0)
            )
        else:
            records.passive.extend((layer, deposit, point.x, point.y, point.z, 1.0))


def end_neutral(track: Any, records: Records, energy: MeasurableEnergy) -> None:
    """Note as invisible what a neutral hadron brings to its end where it ends without a trace, as
    do neutrons after the tracking cut.
    """
    step = track.GetStep()
    pre, post = step.GetPreStepPoint(), step.GetPostStepPoint()
    if (
        step.GetTotalEnergyDeposit() > 0.0
        or step.GetNumberOfSecondariesInCurrentStep()
        or pre.GetKineticEnergy() != post.GetKineticEnergy()
    ):
        return  # balanced as a step
    if int(track.GetTrackStatus()) in ENDED and int(post.GetStepStatus()) != WORLD_BOUNDARY:
        point, (layer, _) = post.GetPosition(), part_of(pre.GetTouchable().GetCopyNumber(0))
        records.balance.extend(
            (
                layer,
                post.GetKineticEnergy() + energy.rest(track.GetDefinition()),
                point.x,
                point.y,
                point.z,
                0.0,
            )
        )


def exit_detector(records: Records, energy: MeasurableEnergy) -> Any:
    """Sensitive detector around the hall: notes what leaves the world, but for neutrinos."""
    import geant4_pybind as g4

    class ExitDetector(g4.G4VSensitiveDetector):
        def ProcessHits(self, step: Any, history: Any) -> bool:
            post, definition = step.GetPostStepPoint(), step.GetTrack().GetDefinition()
            if (
                int(post.GetStepStatus()) == WORLD_BOUNDARY
                and definition.GetPDGEncoding() not in NEUTRINOS
            ):
                records.leak.append(post.GetKineticEnergy() + energy.rest(definition))
            return True

    return ExitDetector("exit")


def attach_scorers(
    construction: Any,
    volumes: Volumes,
    records: Records,
    energy: MeasurableEnergy,
    *,
    calibration_truth: bool,
) -> list[Any]:
    """Make the volumes sensitive, to be called from `ConstructSDandField`; returns what must stay
    referenced.
    """
    import geant4_pybind as g4

    manager = g4.G4SDManager.GetSDMpointer()
    neutral = neutral_particles()
    filters = (g4.G4SDChargedFilter("charged"), g4.G4SDParticleFilter("neutral", neutral))
    detectors: dict[tuple[int, bool], Any] = {}
    kept: list[Any] = [*filters, *neutral]
    for layer, is_active, logical in volumes.parts:
        if not (is_active or calibration_truth):
            continue
        if (layer, is_active) not in detectors:
            detector = g4.G4MultiFunctionalDetector(
                f"layer{layer}_{'active' if is_active else 'passive'}"
            )
            manager.AddNewDetector(detector)
            for make, chosen in zip((charged_scorer, neutral_scorer), filters, strict=True):
                scorer = make(
                    layer, records, energy, is_active=is_active, balance=calibration_truth
                )
                scorer.SetFilter(chosen)
                detector.RegisterPrimitive(scorer)
                kept.append(scorer)
            detectors[layer, is_active] = detector
        construction.SetSensitiveDetector(logical, detectors[layer, is_active])
    if calibration_truth:
        kept.append(exit_detector(records, energy))
        manager.AddNewDetector(kept[-1])
        construction.SetSensitiveDetector(volumes.outside, kept[-1])
    return [*kept, *detectors.values()]
