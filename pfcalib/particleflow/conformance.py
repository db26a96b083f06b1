"""Is an ONNX file what Athena's neural E/p loads? Checked on events that are made here, at the
edges of the format too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.rings import RingCells, ring_cells
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ValidationError
from pfcalib.features.clouds import ATHENA_FEATURES, N_LAYERS
from pfcalib.geometry import BARREL
from pfcalib.particleflow.deposit import N_POINTS, deposit_points
from pfcalib.particleflow.event import Event, FlowClusters, Tracks
from pfcalib.samples.schema import CellGeo

SAME = 1e-4  # relative, of answers that should agree
LARGEST = 20.0  # abs(ln(E / GeV)) of a sensible answer


class Conformance(NamedTuple):
    """What was looked at, each with its answer ln(E / GeV), and one sentence for each fault."""

    path: Path
    answers: dict[str, float]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


def check_athena(path: str | Path, *, seed: int = 1) -> Conformance:
    """Load a file as Athena does and give it tracks: alone, with 1, 50 and all points that there is
    room for, with more cells than that, across the end of phi, through no layer at all.

    Parameters
    ----------
    path : path
        ONNX file.
    seed : int
        Of the cells.

    Returns
    -------
    Conformance
        A file that does not load is a problem, no error.
    """
    path = Path(path)
    try:
        session = open_session(path)
    except ValidationError as error:
        return Conformance(path, {}, (str(error),))
    if problems := _interface(session):
        return Conformance(path, {}, tuple(problems))
    answers: dict[str, float] = {}
    name = session.get_inputs()[0].name
    for what, points in _edges(np.random.default_rng(seed)).items():
        try:
            answers[what] = float(session.run(None, {name: points[None]})[0].flat[0])
        except Exception as error:  # the errors of ONNX Runtime have no common base but this
            problems.append(f"{what}: ONNX Runtime fails: {str(error).splitlines()[0]}")
            continue
        if not abs(answers[what]) < LARGEST:
            problems.append(f"{what}: ln(E / GeV) is {answers[what]:g}")
    for one, other in (
        ("50 points", "50 points, across the end of phi"),
        ("50 points", "50 points, cells in another order"),
    ):
        if {one, other} <= answers.keys():
            off = abs(np.expm1(answers[other] - answers[one]))
            if not off < SAME:
                problems.append(f"{other}: differs from {one} by {off:.1e}, more than {SAME:g}")
    return Conformance(path, answers, tuple(problems))


def _interface(session: Any) -> list[str]:
    """Faults of names, shapes and types."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    expected = [N_POINTS, len(ATHENA_FEATURES)]
    if len(inputs) != 1 or len(outputs) != 1:
        return [f"{len(inputs)} inputs and {len(outputs)} outputs, expected one of each"]
    (taken,), (given,) = inputs, outputs
    first = taken.shape[0] if taken.shape else 0
    wrong = {
        f"input of type {taken.type}, expected tensor(float)": taken.type != "tensor(float)",
        f"input of shape {taken.shape}, expected (1, {N_POINTS}, {len(ATHENA_FEATURES)})": (
            list(taken.shape[1:]) != expected or (isinstance(first, int) and first != 1)
        ),
        f"output of type {given.type}, expected tensor(float)": given.type != "tensor(float)",
    }
    return [what for what, found in wrong.items() if found]


def _edges(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Points of a track in events that are made to be difficult."""
    cells = ring_cells(CellGeo.from_grid(BARREL))
    track = np.array([0])

    def points(n_cells: int, phi: float, n_layers: int = N_LAYERS) -> NDArray[np.float32]:
        return deposit_points(_event(cells, n_cells, phi, n_layers), cells, track)[0]

    fifty = points(50 - N_LAYERS, 1.0)
    mixed = fifty.copy()
    mixed[: 50 - N_LAYERS] = rng.permutation(fifty[: 50 - N_LAYERS])
    room = N_POINTS - N_LAYERS
    found = {
        "track alone": points(0, 1.0),
        "1 point": points(0, 1.0, n_layers=1),
        "50 points": fifty,
        "50 points, across the end of phi": points(50 - N_LAYERS, np.pi),
        "50 points, cells in another order": mixed,
        f"{N_POINTS} points": points(room, 1.0),
        "more cells than there is room for": points(2 * room, 1.0),
        "a track through no layer": np.zeros_like(fifty),
    }
    filled = {what: int((one[:, 3] > 0.0).sum()) for what, one in found.items()}
    expected = (N_LAYERS, 1, 50, 50, 50, N_POINTS, N_POINTS, 0)
    if tuple(filled.values()) != expected:
        raise ValidationError(f"points of the events are {filled}, expected {expected}")
    return found


def _event(cells: RingCells, n_cells: int, phi: float, n_layers: int) -> Event:
    """A track through the first layers behind the presampler, and one cluster of the cells that are
    nearest to it, in whole steps of phi that all layers share.
    """
    step = 2.0 * np.pi / 64.0
    phi, eta = step * np.round(phi / step), 0.2
    d_phi = np.mod(cells.phi - phi + np.pi, 2.0 * np.pi) - np.pi
    d_eta = cells.eta - eta
    # no two cells are equally near, wherever the track is
    distance = np.hypot(d_eta, d_phi) + 1e-4 * d_phi + 2e-4 * d_eta + 1e-5 * cells.layer
    nearest = np.argsort(distance, kind="stable")[:n_cells]
    energy = np.exp(-10.0 * distance[nearest]) + 1e-3 * np.arange(n_cells)[::-1] / max(n_cells, 1)
    reached = np.isin(np.arange(N_LAYERS), [2, 3, 4, 5, 6, 1, 0][:n_layers])
    at = np.where(reached, eta, np.nan)[None], np.where(reached, phi, np.nan)[None]
    zero = np.zeros(1)
    first = np.zeros(1, dtype=np.int64)
    return Event(
        0, 1.0, 0.0,
        Tracks(zero + 10.0, zero + 10.0 * np.cosh(eta), zero + eta, zero + phi, zero, zero, first,
               *at, first - 1),
        FlowClusters(zero + energy.sum(), zero + eta, zero + phi, zero + 1.0,
                     np.array([0, n_cells]), nearest.astype(np.int64), energy, np.ones(n_cells)),
        None,
    )  # fmt: skip
