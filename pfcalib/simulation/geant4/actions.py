"""Geant4 set going: physics list, detector, particle gun, and the calls at both ends of an
event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.scoring import (
    MeasurableEnergy,
    Records,
    attach_scorers,
    end_neutral,
    end_photon,
    new_track,
)
from pfcalib.simulation.geant4.slice import Stack, build_volumes

PHYSICS = (  # FTFP_BERT but for G4EmExtraPhysics, which wants gamma-nuclear data
    "G4DecayPhysics",
    "G4EmStandardPhysics",
    "G4HadronElasticPhysics",
    "G4HadronPhysicsFTFP_BERT",
    "G4StoppingPhysics",
    "G4IonPhysics",
    "G4NeutronTrackingCut",
)


def start_geant4(
    stack: Stack,
    records: Records,
    config: Geant4Config,
    begin_event: Callable[[Any, Any], None],
    end_event: Callable[[], None],
) -> tuple[Any, MeasurableEnergy, tuple[Any, ...]]:
    """Build and initialise the run manager of this process.

    Parameters
    ----------
    stack : Stack
    records : Records
        What the scorers extend.
    config : Geant4Config
    begin_event : callable
        Called with the particle gun and the event; must generate the primary vertex.
    end_event : callable
        Called when all tracks of an event have ended.

    Returns
    -------
    manager, energy, kept
        The run manager, the table of rest energies, and what must stay referenced as long as the
        former lives.
    """
    import geant4_pybind as g4

    manager = g4.G4RunManager()
    physics = _physics(config)
    manager.SetUserInitialization(physics)  # makes the particles
    energy = MeasurableEnergy(
        g4.G4ParticleTable.GetParticleTable().FindParticle("proton").GetPDGMass()
    )
    construction = _construction(stack, records, energy, config)
    actions = _actions(records, energy, config, begin_event, end_event)
    manager.SetUserInitialization(construction)
    manager.SetUserInitialization(actions)
    manager.SetVerboseLevel(0)
    manager.SetPrintProgress(0)
    manager.Initialize()
    # a cut set before this is forgotten
    g4.G4UImanager.GetUIpointer().ApplyCommand(f"/run/setCut {config.cut} mm")
    return manager, energy, (physics, construction, actions)


def _physics(config: Geant4Config) -> Any:
    """FTFP_BERT with the standard electromagnetic physics, put together part by part."""
    import geant4_pybind as g4

    physics = g4.G4VModularPhysicsList()
    physics.SetVerboseLevel(0)
    for name in PHYSICS:
        physics.RegisterPhysics(getattr(g4, name)())
    em = g4.G4EmParameters.Instance()
    em.SetVerbose(0)
    em.SetFluo(False)
    g4.G4HadronicParameters.Instance().SetVerboseLevel(0)
    return physics


def _construction(
    stack: Stack, records: Records, energy: MeasurableEnergy, config: Geant4Config
) -> Any:
    import geant4_pybind as g4

    class Construction(g4.G4VUserDetectorConstruction):
        def Construct(self) -> Any:
            self.volumes = build_volumes(stack)
            return self.volumes.world

        def ConstructSDandField(self) -> None:
            self.scorers = attach_scorers(
                self, self.volumes, records, energy, calibration_truth=config.calibration_truth
            )

    return Construction()


def _actions(
    records: Records,
    energy: MeasurableEnergy,
    config: Geant4Config,
    begin_event: Callable[[Any, Any], None],
    end_event: Callable[[], None],
) -> Any:
    import geant4_pybind as g4

    gamma, neutron = (
        g4.G4ParticleTable.GetParticleTable().FindParticle(name) for name in ("gamma", "neutron")
    )

    class Gun(g4.G4VUserPrimaryGeneratorAction):
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)

        def GeneratePrimaries(self, event: Any) -> None:
            begin_event(self.gun, event)

    class Ending(g4.G4UserEventAction):
        def EndOfEventAction(self, event: Any) -> None:
            end_event()

    class Tracking(g4.G4UserTrackingAction):
        def PreUserTrackingAction(self, track: Any) -> None:
            if records.stopped:
                new_track(track, records, energy)

        def PostUserTrackingAction(self, track: Any) -> None:
            definition = track.GetDefinition()
            if definition is gamma:
                end_photon(track, records)
            elif definition is neutron and config.calibration_truth:
                end_neutral(track, records, energy)

    class Actions(g4.G4VUserActionInitialization):
        def Build(self) -> None:
            self.kept = (Gun(), Ending(), Tracking())
            for action in self.kept:
                self.SetUserAction(action)

    return Actions()
