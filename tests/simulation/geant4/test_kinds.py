"""What collisions send into the calorimeter besides pions and photons, held against a few Geant4
shots of each kind.
"""

import numpy as np
import pytest
from particle import Particle

from pfcalib.geometry import WINDOW
from pfcalib.simulation.showers import simulate_showers
from tests.simulation.blocks import per_layer
from tests.simulation.test_showers import make

N_SHOTS, KINETIC = 10, 4.0  # GeV
KINDS = {"e-": 11, "mu-": 13, "K+": 321, "K0L": 130, "p": 2212, "n": 2112}
LARGEST = 0.05  # of the response, by which the fast showers may be off


def energy_of(pdg_id):
    """Total energy of a nucleon is what it can leave: its kinetic energy."""
    mass = 0.0 if pdg_id in (2212, 2112) else Particle.from_pdgid(pdg_id).mass * 1e-3
    return KINETIC + mass


@pytest.fixture(scope="module")
def of_geant4(shoot):
    """Signal of each shot by layer, GeV, by kind."""
    pdg_id = np.repeat(list(KINDS.values()), N_SHOTS)
    rows = np.zeros((len(pdg_id), 7))
    rows[:, 1] = [energy_of(kind) for kind in pdg_id]
    rows[:, 4] = 1.0
    seeds = np.random.default_rng(5).integers(1, 2**32, (len(pdg_id), 2))
    hits, _ = shoot("window", rows, pdg_id, seeds)[0]
    signal = per_layer(hits, hits.signal)
    return {name: signal[pdg_id == kind] for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_the_signal_of_each_kind_is_that_of_geant4(name, of_geant4, rng):
    kind = KINDS[name]
    energy = KINETIC + Particle.from_pdgid(kind).mass * 1e-3
    fast = simulate_showers(make(kind, energy, n=1500), WINDOW, rng)
    fast, slow = per_layer(fast, fast.signal).sum(axis=1), of_geant4[name].sum(axis=1)
    error = np.hypot(slow.std(ddof=1), fast.std()) / np.sqrt(N_SHOTS)
    assert abs(slow.mean() - fast.mean()) < 3.0 * error + LARGEST * fast.mean()
