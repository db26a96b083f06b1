"""Subtraction by a network that gives the share of each cell that a track left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import file_sha256
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.contract import read_contract
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ValidationError
from pfcalib.particleflow.event import Event, FloatArray, IntArray, MatchedSets
from pfcalib.particleflow.subtract import Removed
from pfcalib.particleflow.surroundings import BUILDERS, KIND, MEANINGS

BATCH = 128  # sets a call of the network


def open_learned(path: str | os.PathLike[str], *, n_threads: int = 1) -> Removed:
    """Subtraction by an ONNX file of `pfcalib.training.shares`.

    Each track takes its share of the energy of each cell, of negative ones too; where the shares of
    several tracks in one entry sum to more than 1 they are scaled to 1. Of cells that a network on
    points does not see, as there are too many, a track takes its mean share of all others; of those
    outside of an image it takes none.

    Parameters
    ----------
    path : path-like
        With its contract beside it, which tells whether the network looks at points or images.
    n_threads : int

    Returns
    -------
    callable
        Of (event, cells, sets): GeV for each entry of the sets.

    Raises
    ------
    ValidationError
        If the file or its contract cannot be read or do not belong together, or the network was not
        trained on what `surroundings` makes; on use, if a number of the event is not finite.
    """
    path = Path(path)
    contract = read_contract(path)
    form = contract.kind.removeprefix(KIND)
    if contract.kind == form or contract.normalisation != MEANINGS.get(form):
        raise ValidationError(
            f"{path}: expected a network of shares of cells, trained on the present features; its "
            f"contract tells of {contract.kind!r} with {contract.normalisation!r}"
        )
    if file_sha256(path) != contract.sha256:
        raise ValidationError(f"{path}: sha256 differs from that of its contract")
    build, session = BUILDERS[form], open_session(path, n_threads=n_threads)

    def removed(event: Event, cells: RingCells, sets: MatchedSets) -> FloatArray:
        inputs, slot = build(event, cells, sets)
        energy = event.clusters.cell_energy[sets.entry]
        if not len(sets.entry):
            return energy
        shares = run_in_batches(session, inputs, BATCH)[:, :, 0].astype(np.float64)
        owner = np.repeat(np.arange(len(sets.track)), np.diff(sets.offsets))
        share = np.where(slot >= 0, shares[owner, slot], 0.0)
        if form == "points":
            share = np.where(slot >= 0, share, _mean_shares(share, energy, owner, slot >= 0)[owner])
        total = np.bincount(sets.entry, share)[sets.entry]
        return share / np.maximum(total, 1.0) * energy

    return removed


def read_cone(path: str | os.PathLike[str]) -> float:
    """dR of the cells around a track that a network was trained on; 0 where it saw those of matched
    clusters.

    Raises
    ------
    ValidationError
        If the contract cannot be read or does not tell it.
    """
    cone = read_contract(Path(path)).training.get("cone")
    if not isinstance(cone, int | float):
        raise ValidationError(
            f"{path}: its contract does not tell which cells around a track the network was "
            "trained on (training: cone)"
        )
    return cone


def _mean_shares(
    share: FloatArray, energy: FloatArray, owner: IntArray, seen: NDArray[np.bool_]
) -> FloatArray:
    """Mean share of the entries of each set that the network sees, weighted by abs(E)."""
    size = np.abs(energy) * seen
    total = np.bincount(owner, size)
    return np.bincount(owner, size * share) / np.where(total > 0.0, total, 1.0)
