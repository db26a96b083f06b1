"""The kinds of particles that the shower kernels carry, and how the unstable ones decay.

Masses, lifetimes and branching fractions are those of the Review of Particle Physics (Phys. Rev. D
110 (2024) 030001); modes below one per cent are left out.
"""

from __future__ import annotations

import math

import numpy as np

from pfcalib.simulation.kernels import (
    ESCAPED,
    Scratch,
    Setup,
    Track,
    deposit,
    find_slab,
    isotropic,
    kernel,
    push,
    turn,
)

PHOTON, ELECTRON, PION, PROTON, NEUTRON, PI0, PION_MINUS = 0, 1, 2, 3, 4, 5, 6
KAON, KAON_MINUS, KAON_LONG, ANTIPROTON, ANTINEUTRON, MUON, NEUTRINO = 7, 8, 9, 10, 11, 12, 13
ELECTRON_MASS, MUON_MASS, PION_MASS, PI0_MASS = 0.000511, 0.10566, 0.13957, 0.13498
KAON_MASS, K0_MASS, PROTON_MASS = 0.49368, 0.49761, 0.93827

# GeV, of each kind
MASS = np.array(
    (0.0, ELECTRON_MASS, PION_MASS, PROTON_MASS, PROTON_MASS, PI0_MASS, PION_MASS,
     KAON_MASS, KAON_MASS, K0_MASS, PROTON_MASS, PROTON_MASS, MUON_MASS, 0.0)
)  # fmt: skip
# GeV that can be measured of one at rest: the mass of mesons and muons; nothing of nucleons, whose
# number is conserved; of antinucleons that of the nucleon too with which they annihilate
REST = MASS.copy()
REST[[ELECTRON, PROTON, NEUTRON]], REST[[ANTIPROTON, ANTINEUTRON]] = 0.0, 2.0 * PROTON_MASS
CHARGED = np.isin(np.arange(14), (PION, PROTON, PION_MINUS, KAON, KAON_MINUS, ANTIPROTON, MUON))
# inelastic cross section on nuclei over that of a pion: 1.18 is the ratio of interaction
# lengths in the PDG tables; those of kaons and antinucleons are estimates of ours
OPACITY = np.ones(14)
OPACITY[[PROTON, NEUTRON]], OPACITY[[ANTIPROTON, ANTINEUTRON]] = 1.18, 1.3
OPACITY[[KAON, KAON_MINUS, KAON_LONG, MUON]] = 0.87, 0.97, 0.92, 1e-9
C_TAU = np.full(14, 1e30)  # mm
C_TAU[[PION, PION_MINUS, KAON, KAON_MINUS, KAON_LONG]] = 7804.0, 7804.0, 3711.0, 3711.0, 15340.0
_MESON = (
    (0.636, MUON, NEUTRINO, -1),
    (0.843, PION, PI0, -1),
    (0.899, PION, PION, PION_MINUS),
    (0.917, PION, PI0, PI0),
    (0.968, PI0, ELECTRON, NEUTRINO),
    (1.0, PI0, MUON, NEUTRINO),
)
# parent, cumulative branching fraction, daughters, -1 for none; the charges of the daughters of a
# negative parent are those of its antiparticle
MODES = np.array(
    [
        (PI0, 1.0, PHOTON, PHOTON, -1),
        (PION, 1.0, MUON, NEUTRINO, -1),
        (PION_MINUS, 1.0, MUON, NEUTRINO, -1),
        *((kaon, *mode) for kaon in (KAON, KAON_MINUS) for mode in _MESON),
        (KAON_LONG, 0.405, PION, ELECTRON, NEUTRINO),
        (KAON_LONG, 0.676, PION_MINUS, MUON, NEUTRINO),
        (KAON_LONG, 0.873, PI0, PI0, PI0),
        (KAON_LONG, 1.0, PION, PION_MINUS, PI0),
    ]
)


@kernel
def momentum_of(kind: int, energy: float) -> float:
    """Momentum in GeV of a particle of this energy, as of `Track`."""
    total = energy - REST[kind] + MASS[kind]
    return math.sqrt(max(total * total - MASS[kind] * MASS[kind], 1e-6))


@kernel
def emit(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, parent: Track, mass: float,
    first: int, m_first: float, second: int, m_second: float,
) -> Track:  # fmt: skip
    """Decay a particle of this mass and total energy into two, isotropic in its rest frame: the
    first goes on the stack (a neutrino escapes), the second is returned.
    """
    p_star = math.sqrt(
        max((mass**2 - (m_first + m_second) ** 2) * (mass**2 - (m_first - m_second) ** 2), 0.0)
    ) / (2.0 * mass)
    gamma = max(parent.energy / mass, 1.0)
    boost = math.sqrt(gamma * gamma - 1.0)
    cos_star, angle = isotropic(rng)
    along, across = p_star * cos_star, p_star * math.sqrt(1.0 - cos_star * cos_star)
    e_first = math.sqrt(m_first * m_first + p_star * p_star)
    energy = min(gamma * e_first + boost * along, parent.energy)
    p_first = gamma * along + boost * e_first
    p_second = -gamma * along + boost * (mass - e_first)
    ux, uy, uz = turn(
        parent.ux, parent.uy, parent.uz, p_first / max(math.hypot(p_first, across), 1e-12), angle
    )
    place(rng, setup, scratch, Track(first, energy, parent.x, parent.y, parent.z, ux, uy, uz))
    ux, uy, uz = turn(
        parent.ux, parent.uy, parent.uz, p_second / max(math.hypot(p_second, across), 1e-12),
        angle + math.pi,
    )  # fmt: skip
    return Track(second, parent.energy - energy, parent.x, parent.y, parent.z, ux, uy, uz)


@kernel
def place(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Put a new particle on the stack; a neutrino escapes."""
    if track.kind == NEUTRINO:
        slab = find_slab(setup.slabs, track.x)
        deposit(setup, scratch, slab, track.x, track.y, track.z, track.energy, 0.0, ESCAPED)
    else:
        push(scratch, track)


@kernel
def decay(rng: np.random.Generator, setup: Setup, scratch: Scratch, parent: Track) -> None:
    """Decay an unstable particle into two or three by one of its modes; a pair of three has a mass
    drawn uniformly.
    """
    pick, mass = rng.random(), MASS[parent.kind]
    for row in range(len(MODES)):
        if int(MODES[row, 0]) != parent.kind or pick > MODES[row, 1]:
            continue
        first, second, third = int(MODES[row, 2]), int(MODES[row, 3]), int(MODES[row, 4])
        if third < 0:
            m_rest = MASS[second]
        else:
            least = MASS[second] + MASS[third]
            m_rest = least + (mass - MASS[first] - least) * rng.random()
        rest = emit(rng, setup, scratch, parent, mass, first, MASS[first], second, m_rest)
        if third >= 0:
            m_second, m_third = MASS[second], MASS[third]
            rest = emit(rng, setup, scratch, rest, m_rest, second, m_second, third, m_third)
        place(rng, setup, scratch, rest)
        return
