"""The detector as slabs across x, read off `pfcalib.geometry`: the reference slice, its Tile part
alone, and the calorimeter of TestEm3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pfcalib.geometry import Grid, Layer
from pfcalib.simulation.detector import FRONT, build_slabs

DEAD = -1  # index of the layer of what belongs to none
MARGIN = 700.0  # mm of calorimeter beside the outermost cell of the grid, as in the reference slice
HALF_WIDTH = 1500.0  # mm in y, and at least in z
_SPACE = 10.0  # mm of vacuum in front of the first slab and behind the last

ACTIVE = ("G4_lAr", "G4_POLYSTYRENE")
EM_PERIOD = (  # material, mm
    ("G4_Pb", 0.765),
    ("G4_Fe", 0.2),
    ("G4_KAPTON", 0.13),
    ("G4_lAr", 2.1),
    ("G4_KAPTON", 0.1),
    ("G4_Cu", 0.075),
    ("G4_KAPTON", 0.1),
    ("G4_lAr", 2.1),
    ("G4_KAPTON", 0.13),
    ("G4_Fe", 0.2),
    ("G4_Pb", 0.765),
)
TILE_PERIOD = (("G4_Fe", 7.15), ("G4_POLYSTYRENE", 3.0), ("G4_Fe", 7.15))
EM3_PERIOD = (("G4_Pb", 2.3), ("G4_lAr", 5.7))


class Slab(NamedTuple):
    """Equal periods one behind the other, each made of parts across x."""

    layer: int  # index in the grid, DEAD for what belongs to none
    x_in: float  # mm
    n_periods: int
    period: tuple[tuple[str, float], ...]  # name of the material in Geant4's NIST table, mm

    @property
    def x_out(self) -> float:
        """End of the last period in mm."""
        return self.x_in + self.n_periods * self.thickness

    @property
    def thickness(self) -> float:
        """Thickness of one period in mm."""
        return sum(part[1] for part in self.period)


class Stack(NamedTuple):
    """Slabs in rising x with their half widths; particles are shot from the plane x = front."""

    slabs: tuple[Slab, ...]
    half_y: float  # mm
    half_z: float  # mm
    front: float  # mm


def reference_stack(grid: Grid) -> Stack:
    """The slice of the reference showers: aluminium, presampler, lead-argon, aluminium,
    iron-scintillator.

    Flat slabs stand where the layers of the grid and the dead material of
    `pfcalib.simulation.detector` stand at y = 0; in z they reach MARGIN beyond the last cell.
    """
    layers = tuple(_layer_slab(i, layer) for i, layer in enumerate(grid.layers))
    shells = build_slabs(grid)
    dead = tuple(
        Slab(DEAD, float(x_in), 1, (("G4_Al", float(x_out - x_in)),))
        for x_in, x_out, layer, de_dx in zip(
            shells.x_in, shells.x_out, shells.layer, shells.de_dx, strict=True
        )
        if layer < 0 and de_dx > 0.0
    )
    slabs = tuple(sorted(layers + dead, key=lambda slab: slab.x_in))
    return Stack(slabs, HALF_WIDTH, _half_z(grid), FRONT)


def tile_stack(grid: Grid) -> Stack:
    """The iron-scintillator layers alone, shot at from their own front."""
    slabs = tuple(_layer_slab(i, layer) for i, layer in enumerate(grid.layers) if not layer.is_em)
    return Stack(slabs, HALF_WIDTH, _half_z(grid), slabs[0].x_in - 1.0)


def em3_stack() -> Stack:
    """The calorimeter of Geant4's example extended/electromagnetic/TestEm3: 50 periods of 2.3 mm
    lead and 5.7 mm liquid argon, 40 cm wide.
    """
    return Stack((Slab(0, 1.0, 50, EM3_PERIOD),), 200.0, 200.0, 0.0)


def _layer_slab(index: int, layer: Layer) -> Slab:
    if layer.sampling == 0:
        return Slab(index, layer.r_in, 1, (("G4_lAr", layer.r_out - layer.r_in),))
    period = EM_PERIOD if layer.is_em else TILE_PERIOD
    return Slab(
        index,
        layer.r_in,
        round((layer.r_out - layer.r_in) / sum(part[1] for part in period)),
        period,
    )


def _half_z(grid: Grid) -> float:
    reach = max(
        layer.r_out * np.sinh(grid.eta_min + layer.n_eta * layer.d_eta) for layer in grid.layers
    )
    return max(HALF_WIDTH, float(reach) + MARGIN)


def copy_number(layer: int, is_active: bool) -> int:
    """Number of a placement, from which `part_of` tells where it belongs; 0 for the hall."""
    return 2 * (layer - DEAD) + is_active


def part_of(copy: int) -> tuple[int, bool]:
    """Layer and whether it is active.

    >>> part_of(copy_number(3, True)), part_of(0)
    ((3, True), (-1, False))
    """
    return copy // 2 + DEAD, copy % 2 == 1


class Volumes(NamedTuple):
    """Logical volumes of a built stack; every wrapper stays referenced here, since Geant4 does not
    own what Python made.
    """

    world: Any  # physical volume
    outside: Any  # logical volume around the hall, which only what leaves can enter
    parts: tuple[tuple[int, bool, Any], ...]  # layer, is active, logical volume
    placements: tuple[Any, ...]
    kept: tuple[Any, ...]


def build_volumes(stack: Stack) -> Volumes:
    """Build a stack in Geant4: a world that catches what leaves, a hall of vacuum, and the slabs in
    it.

    Needs geant4_pybind and its environment; once a process.
    """
    import geant4_pybind as g4

    material = g4.G4NistManager.Instance().FindOrBuildMaterial
    kept: list[Any] = []
    placements: list[Any] = []
    parts: list[tuple[int, bool, Any]] = []

    def box(name: str, thickness: float, substance: str, wider: float = 0.0) -> Any:
        solid = g4.G4Box(name, 0.5 * thickness, stack.half_y + wider, stack.half_z + wider)
        logical = g4.G4LogicalVolume(solid, material(substance), name)
        kept.extend((solid, logical))
        return logical

    def place(logical: Any, mother: Any, x: float, copy: int = 0) -> Any:
        placements.append(
            g4.G4PVPlacement(
                None, g4.G4ThreeVector(x, 0.0, 0.0), logical, logical.GetName(), mother, False, copy
            )
        )
        return placements[-1]

    low, high = stack.front - _SPACE, stack.slabs[-1].x_out + _SPACE
    far = 2.0 * max(abs(low), abs(high)) + 100.0
    outside = box("outside", far, "G4_Galactic", 50.0)
    hall = box("hall", high - low, "G4_Galactic")
    world, centre = place(outside, None, 0.0), 0.5 * (low + high)
    place(hall, outside, centre)
    parts.append((DEAD, False, hall))
    for slab in stack.slabs:
        name = f"layer{slab.layer}" if slab.layer != DEAD else "dead"
        envelope = box(name, slab.x_out - slab.x_in, slab.period[0][0])
        is_active = len(slab.period) == 1 and slab.period[0][0] in ACTIVE
        place(
            envelope,
            hall,
            0.5 * (slab.x_in + slab.x_out) - centre,
            copy_number(slab.layer, is_active),
        )
        parts.append((slab.layer, is_active, envelope))
        if len(slab.period) == 1:
            continue
        unit = box(f"{name}_period", slab.thickness, slab.period[0][0])
        kept.append(
            g4.G4PVReplica(
                unit.GetName(), unit, envelope, g4.kXAxis, slab.n_periods, slab.thickness
            )
        )
        parts.append((slab.layer, False, unit))
        x = -0.5 * slab.thickness
        for substance, thickness in slab.period:
            part = box(f"{name}_{substance}", thickness, substance)
            place(part, unit, x + 0.5 * thickness, copy_number(slab.layer, substance in ACTIVE))
            parts.append((slab.layer, substance in ACTIVE, part))
            x += thickness
    return Volumes(world, outside, tuple(parts), tuple(placements), tuple(kept))
