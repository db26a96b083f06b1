"""Particle flow by one network (after MLPF, arXiv:2101.08578 and arXiv:2601.17554): from tracks and
clusters to particles, without matching, tables or subtraction.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import file_sha256
from pfcalib.calibration.eoverp import PION_MASS
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.contract import read_contract
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ValidationError
from pfcalib.features.windows import (
    CHARGED,
    ELECTRON,
    ELEMENT_COLUMNS,
    ETA,
    LABELS,
    MUON,
    OUTPUTS,
    PHI,
    cut_windows,
    write_windows,
)
from pfcalib.particleflow.elements import Elements, event_elements, split_clusters
from pfcalib.particleflow.event import Event, FloatArray, IntArray
from pfcalib.particleflow.flow import Inputs, require_sound

KIND = "elements"  # of the contract of a network
MEANING = f"elements: {', '.join(ELEMENT_COLUMNS)}; particles: {', '.join(OUTPUTS)}"
BATCH = 8  # windows a call of the network


class FlowParticles(NamedTuple):
    """What the network makes of each element, tracks first; arrays of shape (n_elements,) unless
    said otherwise.
    """

    n_tracks: int  # the others are clusters, or their cells one after the other
    label: IntArray  # the most probable of `features.windows.LABELS`
    probability: FloatArray  # (n_elements, n_labels)
    energy: FloatArray  # GeV of the hard scattering
    eta: FloatArray  # at the origin
    phi: FloatArray  # rad
    pile_up: FloatArray  # share of other collisions


Flow = Callable[[Event, RingCells], FlowParticles]


def open_one_network(path: str | os.PathLike[str], *, n_threads: int = 1) -> Flow:
    """Particle flow by an ONNX file of `pfcalib.training.elementfit`.

    Parameters
    ----------
    path : path-like
        With its contract beside it.
    n_threads : int

    Returns
    -------
    callable
        Of an event and the cells of its file.

    Raises
    ------
    ValidationError
        If the file or its contract cannot be read or do not belong together, or the network was not
        trained on what `features.windows` makes; on use, if a number of the event is not finite.
    """
    path = Path(path)
    contract = read_contract(path)
    n_core, n_elements = contract.training.get("n_core"), contract.inputs[0].shape[0]
    if (
        (contract.kind, contract.normalisation) != (KIND, MEANING)
        or not isinstance(n_core, int)
        or n_elements is None
    ):
        raise ValidationError(
            f"{path}: expected one network for particle flow, trained on the present columns; its "
            f"contract tells of {contract.kind!r} with {contract.normalisation!r}"
        )
    if file_sha256(path) != contract.sha256:
        raise ValidationError(f"{path}: sha256 differs from that of its contract")
    session, n_halo = open_session(path, n_threads=n_threads), n_elements - n_core
    name = contract.inputs[0].name

    def run(event: Event, cells: RingCells) -> FlowParticles:
        require_sound(event)
        if contract.training.get("of_cells"):
            event = split_clusters(event, cells)
        elements = event_elements(event, cells)
        output = np.zeros((len(elements.energy), len(OUTPUTS)))
        windows = cut_windows(
            elements.columns[:, ETA], elements.columns[:, PHI], n_core=n_core, n_halo=n_halo
        )
        if len(windows.phi):
            inputs = {name: write_windows(elements.columns, windows)}
            found = run_in_batches(session, inputs, BATCH)
            output[windows.rows[windows.is_core]] = found[windows.is_core]
        return particles_of(elements, output)

    return run


def particles_of(elements: Elements, output: NDArray[np.floating]) -> FlowParticles:
    """Particles from what a network, or the truth, says of the elements.

    Parameters
    ----------
    elements : Elements
    output : ndarray, shape (n, len(OUTPUTS))
    """
    n = len(LABELS)
    energy, d_eta, d_phi, pile_up = output[:, n:].T.astype(np.float64)
    return FlowParticles(
        elements.n_tracks,
        np.argmax(output[:, :n], axis=1),
        output[:, :n].astype(np.float64),
        energy * elements.energy,
        elements.eta + d_eta,
        np.mod(elements.phi + d_phi + np.pi, 2.0 * np.pi) - np.pi,
        pile_up,
    )


def jet_rows(particles: FlowParticles, *, with_muons: bool = False) -> IntArray:
    """Rows of the particles that jets are made of: tracks that are charged hadrons or electrons of
    the hard scattering, of truth jets muons have no part, and every cluster with energy.

    A cluster counts with its energy whatever its label: that is what a mean over doubtful ones is.

    Parameters
    ----------
    particles : FlowParticles
    with_muons : bool
        Muons too, as missing transverse momentum has them.
    """
    is_track = np.arange(len(particles.energy)) < particles.n_tracks
    kept = np.isin(particles.label, (CHARGED, ELECTRON, *((MUON,) if with_muons else ())))
    return np.flatnonzero((kept | ~is_track) & (particles.energy > 0.0))


def particle_inputs(particles: FlowParticles, *, with_muons: bool = False) -> Inputs:
    """Four-momenta of the particles of `jet_rows`; tracks have the mass of a pion."""
    rows = jet_rows(particles, with_muons=with_muons)
    energy, eta, phi = (of[rows] for of in (particles.energy, particles.eta, particles.phi))
    is_track = rows < particles.n_tracks
    mass = np.where(is_track, PION_MASS, 0.0)
    pt = np.sqrt(np.maximum(energy**2 - mass**2, 0.0)) / np.cosh(eta)
    return Inputs(pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy, is_track)
