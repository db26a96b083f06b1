"""The slabs of the slice stand where the geometry says, with its radiation and interaction lengths,
and nothing overlaps in Geant4.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pfcalib.geometry import BARREL, GRIDS, WINDOW
from pfcalib.simulation.geant4.slice import (
    DEAD,
    HALF_WIDTH,
    copy_number,
    em3_stack,
    part_of,
    reference_stack,
    tile_stack,
)

# radiation and nuclear interaction length in mm: Particle Data Group, atomic and nuclear properties
# of materials
PDG = {
    "G4_Pb": (5.612, 175.9),
    "G4_Fe": (17.57, 167.8),
    "G4_Al": (88.97, 397.0),
    "G4_Cu": (14.36, 153.2),
    "G4_KAPTON": (285.7, 602.0),
    "G4_lAr": (140.0, 857.7),
    "G4_POLYSTYRENE": (413.1, 770.7),
}

OVERLAPS = """
import json, os, sys
from pfcalib.geometry import GRIDS
from pfcalib.simulation.geant4.data import find_data
find_data().export()
import geant4_pybind as g4
from pfcalib.simulation.geant4.slice import build_volumes, em3_stack, reference_stack, tile_stack

barrel = GRIDS["barrel"]
stacks = {"barrel": reference_stack(barrel), "tile": tile_stack(barrel), "em3": em3_stack()}
built = {name: build_volumes(stack) for name, stack in stacks.items()}
found = {
    name: [bool(each.CheckOverlaps(1000, 0.0, False)) for each in volumes.placements]
    for name, volumes in built.items()
}
print(json.dumps(found), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_every_layer_has_its_slab(name):
    grid = GRIDS[name]
    slabs = {slab.layer: slab for slab in reference_stack(grid).slabs if slab.layer != DEAD}
    assert set(slabs) == set(range(grid.n_layers))
    for i, layer in enumerate(grid.layers):
        assert (slabs[i].x_in, slabs[i].x_out) == pytest.approx(
            (layer.r_in, layer.r_out), abs=1e-6
        ), layer.name


@pytest.mark.parametrize(
    ("length", "name", "tolerance"), [(0, "x0", 0.02), (1, "lambda_int", 0.03)]
)
def test_every_layer_has_the_depth_that_the_geometry_says(length, name, tolerance):
    for slab in reference_stack(BARREL).slabs:
        if slab.layer != DEAD:
            depth = slab.n_periods * sum(
                thickness / PDG[material][length] for material, thickness in slab.period
            )
            assert depth == pytest.approx(
                getattr(BARREL.layers[slab.layer], name), rel=tolerance
            ), BARREL.layers[slab.layer].name


def test_dead_material_is_1_9_radiation_lengths_and_100_mm_of_aluminium():
    first, second = (slab for slab in reference_stack(BARREL).slabs if slab.layer == DEAD)
    assert (first.x_in, first.thickness) == (1230.0, pytest.approx(1.9 * 88.97, abs=0.01))
    assert (second.x_in, second.thickness) == (2000.0, 100.0)


@pytest.mark.parametrize(
    "stack", [reference_stack(BARREL), reference_stack(WINDOW), tile_stack(BARREL), em3_stack()]
)
def test_slabs_follow_one_another(stack):
    edges = np.array([(slab.x_in, slab.x_out) for slab in stack.slabs])
    assert (edges[:, 0] < edges[:, 1]).all()
    assert (edges[1:, 0] >= edges[:-1, 1] - 1e-9).all()
    assert stack.front <= edges[0, 0]


def test_the_window_is_as_wide_as_the_reference_and_the_barrel_holds_its_last_cell():
    assert reference_stack(WINDOW).half_z == HALF_WIDTH == 1500.0
    assert reference_stack(BARREL).half_z > BARREL.layers[-1].r_out * np.sinh(0.8) + 500.0


def test_the_number_of_a_placement_tells_layer_and_part():
    for layer in range(DEAD, 7):
        for is_active in (False, True):
            assert part_of(copy_number(layer, is_active)) == (layer, is_active)


def test_nothing_overlaps_in_geant4(cache):
    done = subprocess.run(
        [sys.executable, "-c", OVERLAPS],
        env=os.environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    overlaps = json.loads(done.stdout.splitlines()[-1])
    assert len(overlaps["barrel"]) > 20
    assert not any(each for placements in overlaps.values() for each in placements), overlaps
