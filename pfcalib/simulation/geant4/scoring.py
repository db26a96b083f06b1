"""Callbacks: deposits by place, the energy balance of hadrons, and what leaves.

Geant4 calls Python, through filters in C++, for steps of charged particles and of neutral hadrons only; photons are asked once, at their end.
Callbacks append plain numbers; `pfcalib.simulation.geant4.cells` makes cells of them once an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pfcalib.simulation.geant4.records import NEUTRAL_PIONS, NEUTRINOS, MeasurableEnergy, Records, Stopped
from pfcalib.simulation.geant4.slice import Volumes, part_of

STOPPED = 1  # fStopButAlive of G4TrackStatus
ENDED = (2, 3)  # fStopAndKill and fKillTrackAndSecondaries
_TINY = 1e-6  # MeV, below which a balance is rounding
_LIGHT = 1.0  # MeV; of what is charged only electrons and positrons weigh less


def neutral_particles() -> list[Any]:
    """Definitions of all neutral hadrons that are tracked, the frequent ones first; excited states, such as N(1440), decay where they are made."""
    import geant4_pybind as g4

    table = g4.G4ParticleTable.GetParticleTable()
    everything = [table.GetParticle(i) for i in range(table.entries())]
    first = ("neutron", "pi0", "kaon0L", "kaon0S", "lambda", "eta")
    chosen = {name: table.FindParticle(name) for name in first}
    for particle in everything:
        name = particle.GetParticleName()
        if particle.GetParticleType() in ("meson", "baryon") and particle.GetPDGCharge() == 0.0 and "(" not in name:
            chosen.setdefault(name, particle)
    return list(chosen.values())


def step_scorer(name: str, layer: int, records: Records, energy: MeasurableEnergy, *, is_active: bool, balance: bool) -> Any:
    """Scorer of a volume: deposits of all that passes the filter, and the balance of each step but for electrons and positrons.

    Parameters
    ----------
    name : str
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
    getters: list[Any] = []  # Geant4 has one step, filled again and again: its getters are bound once

    class StepScorer(g4.G4VPrimitiveScorer):
        def Initialize(self, collections: Any) -> None:
            """Nothing is kept in Geant4's collections."""

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if not getters:
                getters.extend(_getters(step))
            get_deposit, get_position, get_mass, get_time, get_length, get_charge, get_before, get_after, get_made = getters
            deposit = get_deposit()
            electron = get_mass() < _LIGHT
            if deposit > 0.0:
                point = get_position()
                if is_active:
                    length = get_length() if electron or get_charge() != 0.0 else 0.0
                    extend((layer, deposit, point.x, point.y, point.z, electron, get_time(), length))
                else:
                    extend((layer, deposit, point.x, point.y, point.z, electron))
            if electron or not balance:
                return True
            lost, made, status = get_before() - get_after() - deposit, get_made(), int(step.GetTrack().GetTrackStatus())
            if made or status or abs(lost) > _TINY:
                balance_step(step, lost, made, status)
            return True

    return StepScorer(name)


def _getters(step: Any) -> tuple[Any, ...]:
    pre, post = step.GetPreStepPoint(), step.GetPostStepPoint()
    return (
        step.GetTotalEnergyDeposit, pre.GetPosition, pre.GetMass, pre.GetGlobalTime, step.GetStepLength, pre.GetCharge,
        pre.GetKineticEnergy, post.GetKineticEnergy, step.GetNumberOfSecondariesInCurrentStep,
    )  # fmt: skip


def _balance(layer: int, records: Records, energy: MeasurableEnergy) -> Callable[[Any, float, int, int], None]:
    """Function that notes what a step makes invisible, gives to neutrinos, and makes of pi0 and eta.

    Invisible is the measurable energy before, less that after, the deposit, and that of all secondaries; what is stopped without descendants,
    such as a neutron after the tracking cut, is lost where it ends.
    """
    extend, neutral, rest, stopped = records.balance.extend, records.neutral.append, energy.rest, records.stopped

    def balance_step(step: Any, lost: float, n_secondaries: int, status: int) -> None:
        track, post = step.GetTrack(), step.GetPostStepPoint()
        point, escaped = post.GetPosition(), 0.0
        if status in ENDED:
            lost += post.GetKineticEnergy() + rest(track.GetDefinition())
        elif status == STOPPED:
            stopped[track.GetTrackID()] = Stopped(layer, point, rest(track.GetDefinition()))
        for secondary in step.GetSecondaryInCurrentStep() if n_secondaries else ():
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
    """Subtract a new track from the particle at rest that made it: Geant4 shows steps at rest to no sensitive detector.

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
            records.active.extend((layer, deposit, point.x, point.y, point.z, 1.0, pre.GetGlobalTime(), 0.0))
        else:
            records.passive.extend((layer, deposit, point.x, point.y, point.z, 1.0))


def exit_detector(records: Records, energy: MeasurableEnergy) -> Any:
    """Sensitive detector around the hall: notes what leaves the world, but for neutrinos."""
    import geant4_pybind as g4

    class ExitDetector(g4.G4VSensitiveDetector):
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


def attach_scorers(construction: Any, volumes: Volumes, records: Records, energy: MeasurableEnergy, *, calibration_truth: bool) -> Scorers:
    """Make the volumes sensitive; to be called from `ConstructSDandField`."""
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
            detector = g4.G4MultiFunctionalDetector(f"layer{layer}_{'active' if is_active else 'passive'}")
            manager.AddNewDetector(detector)
            for name, chosen in zip(("charged", "neutral"), filters, strict=True):
                scorer = step_scorer(name, layer, records, energy, is_active=is_active, balance=calibration_truth)
                scorer.SetFilter(chosen)
                detector.RegisterPrimitive(scorer)
                kept.append(scorer)
            detectors[layer, is_active] = detector
        construction.SetSensitiveDetector(logical, detectors[layer, is_active])
    if calibration_truth:
        kept.append(exit_detector(records, energy))
        manager.AddNewDetector(kept[-1])
        construction.SetSensitiveDetector(volumes.outside, kept[-1])
    return Scorers(tuple(detectors.values()), tuple(kept))
