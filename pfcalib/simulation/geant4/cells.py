"""From the deposits of an event to cells: Birks' law, the gate, the EM scale, and the calibration
truth of each cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.geometry import Grid
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.scoring import (
    ACTIVE_COLUMNS,
    BALANCE_COLUMNS,
    PASSIVE_COLUMNS,
    Records,
)

_GEV = 1e-3  # MeV
SIGNAL, EM, NON_EM, INVISIBLE, ESCAPED = range(5)


class EventHits(NamedTuple):
    """Cells of one event in rising order with (signal, em, non_em, invisible, escaped), and what is
    outside of cells; GeV.
    """

    cell: NDArray[np.int32]  # (n,)
    values: NDArray[np.float64]  # (n, 5)
    e_dead: float
    e_leak: float
    e_pi0: float
    # (n_layers, 2) deposits in absorbers and in active material, cells or not, no Birks, no gate
    tally: NDArray[np.float64]


def visible(
    deposit: NDArray[np.float64],
    length: NDArray[np.float64],
    is_em: NDArray[np.bool_],
    config: Geant4Config,
) -> NDArray[np.float64]:
    """Deposits after Birks' law, dE / (1 + k dE/dx) over the step; where no length is given
    (neutral particles), as they are.

    J. B. Birks, Proc. Phys. Soc. A 64 (1951) 874; constants as in ATLAS: 0.0348 mm/MeV in liquid
    argon, where the signal is normalised to minimum ionising particles (NIM A 523 (2004) 275),
    0.126 mm/MeV in polystyrene.

    Parameters
    ----------
    deposit : ndarray, shape (n,), MeV
    length : ndarray, shape (n,), mm
    is_em : ndarray of bool, shape (n,)
        True in liquid argon.
    config : Geant4Config
    """
    charged = length > 0.0
    density = np.divide(deposit, length, out=np.zeros_like(deposit), where=charged)
    constant, norm = (
        np.where(is_em, config.birks_lar, config.birks_scintillator),
        np.where(is_em, config.norm_lar, 1.0),
    )
    return np.where(charged, deposit * norm / (1.0 + constant * density), deposit)


def collect_event(records: Records, grid: Grid, phi_axis: float, config: Geant4Config) -> EventHits:
    """The cells of the present event, its local frame turned back by `phi_axis`.

    Parameters
    ----------
    records : Records
    grid : Grid
    phi_axis : float, rad
    config : Geant4Config
    """
    active = np.frombuffer(records.active).reshape(-1, ACTIVE_COLUMNS)
    passive = np.frombuffer(records.passive).reshape(-1, PASSIVE_COLUMNS)
    balance = np.frombuffer(records.balance).reshape(-1, BALANCE_COLUMNS)
    layer = np.concatenate([active[:, 0], passive[:, 0], balance[:, 0]]).astype(np.int64)
    points = np.concatenate([active[:, 2:5], passive[:, 2:5], balance[:, 2:5]])
    cell = locate(layer, points, grid, phi_axis)
    n_active, n_deposits = len(active), len(active) + len(passive)
    values = np.zeros((len(layer), 5))
    is_em = np.array([each.is_em for each in grid.layers])[layer[:n_active]]
    scale = np.where(is_em, config.lar_scale, config.tile_scale) * (active[:, 6] <= config.gate)
    values[:n_active, SIGNAL] = scale * visible(active[:, 1], active[:, 7], is_em, config)
    if config.calibration_truth:
        deposit, electron = (np.concatenate([active[:, i], passive[:, i]]) for i in (1, 5))
        values[:n_deposits, EM], values[:n_deposits, NON_EM] = (
            deposit * electron,
            deposit * (1.0 - electron),
        )
        values[n_deposits:, INVISIBLE] = np.where(balance[:, 5] == 0.0, balance[:, 1], 0.0)
        values[n_deposits:, ESCAPED] = np.where(balance[:, 5] == 1.0, balance[:, 1], 0.0)
    values *= _GEV
    truth = values[:, EM:].sum(axis=1)
    dead, outside = layer < 0, (layer >= 0) & (cell < 0)
    e_leak = truth[outside].sum() + _GEV * sum(records.leak)
    return EventHits(
        *_sum_cells(cell, values),
        float(truth[dead].sum()),
        float(e_leak),
        _GEV * sum(records.neutral),
        _tally(passive, active, grid),
    )


def _tally(
    passive: NDArray[np.float64], active: NDArray[np.float64], grid: Grid
) -> NDArray[np.float64]:
    """Deposits in each layer, cells or not: (n_layers, 2) GeV in absorbers and in active
    material.
    """
    tally = np.zeros((grid.n_layers, 2))
    for i, part in enumerate((passive, active)):
        inside = part[:, 0] >= 0
        tally[:, i] = _GEV * np.bincount(
            part[inside, 0].astype(np.int64), part[inside, 1], grid.n_layers
        )
    return tally


def locate(
    layer: NDArray[np.int64], points: NDArray[np.float64], grid: Grid, phi_axis: float
) -> NDArray[np.int64]:
    """Cell of each point (n, 3), mm, in the local frame; -1 in dead material and outside of the
    grid.
    """
    eta = np.arcsinh(points[:, 2] / np.hypot(points[:, 0], points[:, 1]))
    phi = np.arctan2(points[:, 1], points[:, 0]) + phi_axis
    if not grid.wraps:
        phi = (phi + np.pi) % (2.0 * np.pi) - np.pi
    cell = np.full(len(layer), -1, np.int64)
    for i in np.unique(layer[layer >= 0]):
        here = layer == i
        cell[here] = grid.locate(int(i), eta[here], phi[here])
    return cell


def _sum_cells(
    cell: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Cells in rising order with the sum of their rows of values."""
    inside = cell >= 0
    cells, inverse = np.unique(cell[inside], return_inverse=True)
    sums = np.zeros((len(cells), values.shape[1]))
    for i, column in enumerate(values[inside].T):
        sums[:, i] = np.bincount(inverse, column, len(cells))
    return cells.astype(np.int32), sums
