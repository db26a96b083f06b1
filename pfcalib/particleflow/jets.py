"""Jets: anti-kt (arXiv:0802.1189) by FastJet (arXiv:1111.6097), their areas, the density of pile-up
that is subtracted with them (arXiv:0707.1378), and their matching to truth jets.

FastJet is an extra: ``pip install 'pfcalib[jets]'``. Its banner is not shown; whoever publishes
jets cites arXiv:1111.6097.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.jetperformance import FoundJets

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

PT_MIN = 4.0  # GeV of the softest jet that is kept, and of a truth jet that explains a jet
ISOLATION_PT = 7.0  # GeV of a jet that disturbs its neighbours
# distances over the radius of the jets, as arXiv:1703.09665 has them for 0.4: 0.3, 1.0 and 0.6
MATCH_DISTANCE, TRUTH_ISOLATION, RECO_ISOLATION = 0.75, 2.5, 1.5
NO_JET = -1
GHOST_AREA = 0.01  # in (eta, phi) of a ghost, as FastJet has it
_MOMENTUM = ["px", "py", "pz", "E"]  # as FastJet names them
_GHOST_PT = 1e-100  # GeV; no jet feels it
_CHUNK = 100  # events that FastJet holds in memory at once


class Jets(NamedTuple):
    """Jets of a batch of events, those of event i at offsets[i]:offsets[i + 1] by falling pT."""

    offsets: IntArray  # (n_events + 1,)
    pt: FloatArray  # (n_jets,) GeV
    eta: FloatArray  # (n_jets,)
    phi: FloatArray  # (n_jets,) rad, -pi to pi
    mass: FloatArray  # (n_jets,) GeV
    area: FloatArray  # (n_jets, 4) px, py, pz, e of the area, see `find_jets`; NaN if not asked for
    constituents: ak.Array  # (n_jets, ...) rows of the inputs

    @property
    def event(self) -> IntArray:
        """Place of the event of each jet, shape (n_jets,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


class JetPairs(NamedTuple):
    """Rows of jets that belong together; arrays of shape (n_pairs,)."""

    reco: IntArray
    truth: IntArray


def require_fastjet() -> None:
    """Raise ConfigError where fastjet is not installed; imports nothing."""
    if importlib.util.find_spec("fastjet") is None:
        raise ConfigError("jets need the package fastjet: pip install 'pfcalib[jets]'")


@functools.cache
def _fastjet() -> Any:
    """FastJet after its banner: the first clustering writes it past Python to standard output, and
    Python has no switch for it.
    """
    require_fastjet()
    import fastjet

    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        one = _as_events(np.array([[1.0, 0.0, 0.0, 1.0]]), np.array([0, 1]))
        fastjet.ClusterSequence(one, fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4))
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    return fastjet


def find_jets(
    px: ArrayLike, py: ArrayLike, pz: ArrayLike, e: ArrayLike, offsets: ArrayLike | None = None, *,
    radius: float = 0.4, pt_min: float = PT_MIN, area_eta: float | None = None,
) -> Jets:  # fmt: skip
    """Anti-kt jets in the E scheme (four-momenta are added).

    The area of a jet is the sum over the ghosts in it, particles of no energy strewn evenly over
    (eta, phi), of their share of (eta, phi) times their four-momentum over pT: the active area
    four-vector (arXiv:0802.1188). Where the calorimeter ends the ghosts should end as well: a jet
    that reaches over its edge then has the area that could give it energy. The ghosts are the same
    in every event, so the same event has the same jets.

    Parameters
    ----------
    px, py, pz, e : array_like, shape (n,), GeV
        Four-momenta of clusters, objects or particles. Those of e <= 0 (clusters of noise; zeros)
        are left out, for they would turn around what they are added to; so are those along the
        beam, which lie at no pseudorapidity.
    offsets : array_like, shape (n_events + 1,), optional
        Inputs of event i at offsets[i]:offsets[i + 1]; by default all are of one event.
    radius : float
    pt_min : float, GeV
        Of a jet that is kept, before anything is subtracted; at 0 jets of ghosts alone are kept
        too.
    area_eta : float, optional
        Largest abs(eta) of the ghosts; without it areas are NaN, and the jets are found faster.

    Raises
    ------
    ConfigError
        If FastJet is missing, or a parameter is not positive.
    ValidationError
        If the inputs differ in length, are not finite (event and input are named), or the offsets
        do not cover them.
    """
    momentum, ends = _checked(px, py, pz, e, offsets)
    return _cluster("antikt", momentum, ends, radius, pt_min, area_eta)


def pile_up_density(
    px: ArrayLike, py: ArrayLike, pz: ArrayLike, e: ArrayLike, offsets: ArrayLike | None = None, *,
    eta_max: float, radius: float = 0.4,
) -> FloatArray:  # fmt: skip
    """Density of transverse momentum of each event: the median of pT over area of its kt jets
    (arXiv:0707.1378).

    Inputs and ghosts within eta_max make the jets, so those at the edge count with the part of
    their area that lies within. Jets of nothing but ghosts count as well: the density of a nearly
    empty event is 0.

    Parameters
    ----------
    px, py, pz, e, offsets
        As of `find_jets`, which names the errors too.
    eta_max : float
        Where the inputs end.
    radius : float

    Returns
    -------
    ndarray, shape (n_events,), GeV for each unit of area in (eta, phi)
    """
    momentum, ends = _checked(px, py, pz, e, offsets)
    outside = ~(np.abs(_columns(momentum)[1]) < eta_max)
    momentum[outside] = 0.0  # left out
    jets = _cluster("kt", momentum, ends, radius, 0.0, eta_max)
    area = np.hypot(jets.area[:, 0], jets.area[:, 1])
    real = ak.to_numpy(ak.num(jets.constituents)) > 0  # ghosts bring no pT
    density = np.divide(
        np.where(real, jets.pt, 0.0), area, where=area > 0.0, out=np.full_like(area, np.nan)
    )
    return np.array([np.nanmedian(density[a:b]) for a, b in itertools.pairwise(jets.offsets)])


def subtract_pile_up(jets: Jets, density: ArrayLike) -> Jets:
    """Jets less density times area, as four-vectors (arXiv:0707.1378, 0802.1188).

    A jet of which nothing remains keeps its direction at pT 0; none goes below, and no mass does.
    Jets stay in their places.

    Parameters
    ----------
    jets : Jets
        With areas.
    density : array_like, shape (n_events,), GeV
        Of each event, see `pile_up_density`.

    Raises
    ------
    ValidationError
        If there is not one density an event, not below 0, or the jets have no areas.
    """
    rho = np.asarray(density, dtype=np.float64)
    if rho.shape != (len(jets.offsets) - 1,) or not np.all(rho >= 0.0):
        raise ValidationError(
            f"density of shape {rho.shape}: expected one an event, ({len(jets.offsets) - 1},), not "
            "below 0"
        )
    if np.isnan(jets.area).any():
        raise ValidationError("jets without areas: expected those of find_jets(..., area_eta=...)")
    momentum = np.column_stack(
        [
            jets.pt * np.cos(jets.phi),
            jets.pt * np.sin(jets.phi),
            jets.pt * np.sinh(jets.eta),
            np.hypot(jets.pt * np.cosh(jets.eta), jets.mass),
        ]
    )
    taken = rho[jets.event, None] * jets.area
    left = np.hypot(taken[:, 0], taken[:, 1]) < jets.pt
    pt, eta, phi, mass = _columns(momentum - taken)
    return jets._replace(
        pt=np.where(left, pt, 0.0),
        eta=np.where(left, eta, jets.eta),
        phi=np.where(left, phi, jets.phi),
        mass=np.where(left, mass, 0.0),
    )


def is_isolated(jets: Jets, *, distance: float, pt_min: float = ISOLATION_PT) -> Mask:
    """Jets without another one above pt_min (GeV) within a distance in (eta, phi), shape
    (n_jets,).
    """
    first, second, apart = _pairs(jets, jets)
    disturbed = first[(first != second) & (apart < distance) & (jets.pt[second] > pt_min)]
    return np.bincount(disturbed, minlength=len(jets.pt)) == 0


def nearest(jets: Jets, others: Jets, *, distance: float, pt_min: float = 0.0) -> IntArray:
    """For each jet the row of the nearest of the others in its event above pt_min (GeV) and within
    a distance in (eta, phi), shape (n_jets,); NO_JET where there is none.
    """
    first, second, apart = _pairs(jets, others)
    near = (apart < distance) & (others.pt[second] > pt_min)
    order = np.flatnonzero(near)[np.argsort(-apart[near], kind="stable")]
    row = np.full(len(jets.pt), NO_JET)
    row[first[order]] = second[order]  # the last one written is the nearest
    return row


def match_jets(reco: Jets, truth: Jets, *, eta_max: float, radius: float = 0.4) -> JetPairs:
    """Isolated truth jets and the isolated jets that are the nearest to them, and they to those
    (arXiv:1703.09665).

    Parameters
    ----------
    reco, truth : Jets
        Of the same events.
    eta_max : float
        Largest abs(eta) of the truth jets: where the calorimeter ends, less the radius.
    radius : float
        Of the jets; distances are MATCH_DISTANCE, TRUTH_ISOLATION and RECO_ISOLATION times it.

    Raises
    ------
    ValidationError
        If the numbers of events differ.
    """
    found = nearest(truth, reco, distance=MATCH_DISTANCE * radius)
    back = nearest(reco, truth, distance=MATCH_DISTANCE * radius)
    good = (found != NO_JET) & (np.abs(truth.eta) < eta_max)
    good &= is_isolated(truth, distance=TRUTH_ISOLATION * radius)
    row = np.flatnonzero(good)
    alone = is_isolated(reco, distance=RECO_ISOLATION * radius)[found[row]]
    row = row[alone & (back[found[row]] == row)]
    return JetPairs(found[row], row)


def found_jets(
    reco: Jets, truth: Jets, *, pt_range: tuple[float, float], eta_max: float, radius: float = 0.4
) -> FoundJets:
    """What of the hard scattering and what of pile-up a kind of jets finds, for `pile_up_jets`.

    Of the hard scattering are isolated truth jets with pT in the range, each with the nearest jet
    within MATCH_DISTANCE radii, isolated or not. Of pile-up are jets without a truth jet above
    PT_MIN within RECO_ISOLATION radii. Both lie within eta_max.

    Parameters
    ----------
    reco, truth : Jets
        Of the same events; truth of the hard scattering only.
    pt_range : tuple of float, GeV
        Lowest and highest true pT.
    eta_max, radius : float
        As of `match_jets`.
    """
    hard = (truth.pt >= pt_range[0]) & (truth.pt < pt_range[1]) & (np.abs(truth.eta) < eta_max)
    hard &= is_isolated(truth, distance=TRUTH_ISOLATION * radius)
    row = nearest(truth, reco, distance=MATCH_DISTANCE * radius)[hard]
    pt = np.append(reco.pt, 0.0)[row]  # NO_JET is the last place
    pile_up = nearest(reco, truth, distance=RECO_ISOLATION * radius, pt_min=PT_MIN) == NO_JET
    pile_up &= np.abs(reco.eta) < eta_max
    return FoundJets(pt, truth.event[hard], reco.pt[pile_up], reco.event[pile_up])


def _pairs(jets: Jets, others: Jets) -> tuple[IntArray, IntArray, FloatArray]:
    """Rows of every jet with every other jet of its event, and their distance in (eta, phi)."""
    if len(jets.offsets) != len(others.offsets):
        raise ValidationError(
            f"jets of {len(jets.offsets) - 1} and of {len(others.offsets) - 1} events: expected "
            "the same events"
        )
    n_others = np.diff(others.offsets)[jets.event]
    start = np.cumsum(n_others) - n_others - others.offsets[jets.event]
    first = np.repeat(np.arange(len(jets.pt)), n_others)
    second = np.arange(len(first)) - np.repeat(start, n_others)
    d_phi = np.remainder(jets.phi[first] - others.phi[second] + np.pi, 2.0 * np.pi) - np.pi
    return first, second, np.hypot(jets.eta[first] - others.eta[second], d_phi)


def _checked(
    px: ArrayLike, py: ArrayLike, pz: ArrayLike, e: ArrayLike, offsets: ArrayLike | None
) -> tuple[FloatArray, IntArray]:
    """Four-momenta, shape (n, 4), and offsets of the events."""
    columns = {
        name: np.asarray(column, dtype=np.float64)
        for name, column in zip(("px", "py", "pz", "e"), (px, py, pz, e), strict=True)
    }
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or columns["e"].ndim != 1:
        raise ValidationError(f"px, py, pz, e of shapes {sorted(shapes)}: expected one, (n,)")
    momentum = np.column_stack(list(columns.values()))
    n = len(momentum)
    ends = np.array([0, n]) if offsets is None else np.asarray(offsets, dtype=np.int64)
    rises = ends.ndim == 1 and ends.size > 0 and not np.any(np.diff(ends) < 0)
    if not (rises and ends[0] == 0 and ends[-1] == n):
        raise ValidationError(f"offsets: expected to rise from 0 to {n}, the number of inputs")
    bad = np.argwhere(~np.isfinite(momentum))
    if len(bad):
        row, column = bad[0]
        event = int(np.searchsorted(ends, row, side="right")) - 1
        raise ValidationError(
            f"event {event}, input {row - ends[event]}: {list(columns)[column]} = "
            f"{momentum[row, column]} GeV, expected finite"
        )
    return momentum, ends


def _cluster(
    algorithm: str, momentum: FloatArray, offsets: IntArray, radius: float, pt_min: float,
    area_eta: float | None,
) -> Jets:  # fmt: skip
    """Jets of FastJet; what has no energy or no pseudorapidity is left out."""
    if not (radius > 0.0 and pt_min >= 0.0 and (area_eta is None or area_eta > 0.0)):
        raise ConfigError(
            f"jets: radius {radius}, pt_min {pt_min}, largest abs(eta) of ghosts {area_eta}: "
            "expected above 0"
        )
    definition = _fastjet().JetDefinition(getattr(_fastjet(), f"{algorithm}_algorithm"), radius)
    kept = np.flatnonzero((momentum[:, 3] > 0.0) & np.any(momentum[:, :2] != 0.0, axis=1))
    ends, n_events = np.searchsorted(kept, offsets), len(offsets) - 1
    ghosts = np.empty((0, 4)) if area_eta is None else _ghosts(area_eta)
    chunks = []
    for first in range(0, max(n_events, 1), _CHUNK):
        here = ends[first : first + _CHUNK + 1]
        inputs = kept[here[0] : here[-1]]
        event, total, area, n_members, rows = _cluster_chunk(
            definition, momentum[inputs], here - here[0], pt_min, ghosts
        )
        chunks.append((first + event, total, area, n_members, inputs[rows]))
    event, total, area, n_members, rows = map(np.concatenate, zip(*chunks, strict=True))
    pt, eta, phi, mass = _columns(total)
    order = np.lexsort((-pt, event))
    return Jets(
        np.searchsorted(event, np.arange(n_events + 1)),
        pt[order],
        eta[order],
        phi[order],
        mass[order],
        area[order] if area_eta is not None else np.full(area.shape, np.nan),
        ak.unflatten(rows, n_members)[order],
    )


def _cluster_chunk(
    definition: Any, momentum: FloatArray, offsets: IntArray, pt_min: float, ghosts: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray, IntArray, IntArray]:
    """Event, four-momentum, area and number of constituents of each jet, and the rows of these."""
    n_inputs = np.diff(offsets)
    # each event is its inputs, then the ghosts
    lengths = np.column_stack([n_inputs, np.full_like(n_inputs, len(ghosts))])
    is_ghost = np.repeat(np.arange(lengths.size) % 2 == 1, lengths.ravel())
    table = np.empty((len(is_ghost), 4))
    table[~is_ghost] = momentum
    table[is_ghost] = np.tile(_GHOST_PT * ghosts, (len(n_inputs), 1))
    events = _as_events(table, np.append(0, np.cumsum(lengths.sum(axis=1))))
    sequence = _fastjet().ClusterSequence(events, definition)
    jets = sequence.inclusive_jets(pt_min).layout
    members = sequence.constituent_index(pt_min).layout.content  # of each jet
    event = np.repeat(np.arange(len(n_inputs)), np.diff(jets.offsets.data))
    jet = np.repeat(np.arange(len(event)), np.diff(members.offsets.data))
    place = members.content.data[: len(jet)].astype(np.int64)  # what follows is no jet's
    ghost = place - n_inputs[event[jet]]  # negative for inputs
    real = ghost < 0
    area = np.zeros((len(event), 4))
    np.add.at(area, jet[~real], ghosts[ghost[~real]])
    return (
        event,
        np.column_stack([jets.content[name].data for name in _MOMENTUM]),
        area,
        np.bincount(jet[real], minlength=len(event)),
        offsets[event[jet[real]]] + place[real],
    )


def _as_events(table: FloatArray, offsets: IntArray) -> ak.Array:
    """Four-momenta as FastJet reads them."""
    columns = [ak.contents.NumpyArray(column) for column in table.T.copy()]
    records = ak.contents.RecordArray(columns, _MOMENTUM)
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), records))


def _ghosts(eta_max: float) -> FloatArray:
    """Ghosts within eta_max, each somewhere in a cell of its own of about GHOST_AREA: the area of
    the cell times px, py, pz, e over pT, shape (n_ghosts, 4).
    """
    side = np.sqrt(GHOST_AREA)
    n_eta, n_phi = max(round(2.0 * eta_max / side), 1), round(2.0 * np.pi / side)
    d_eta, d_phi = 2.0 * eta_max / n_eta, 2.0 * np.pi / n_phi
    i_eta, i_phi = np.indices((n_eta, n_phi)).reshape(2, -1)
    u_eta, u_phi = np.random.default_rng(0).random((2, n_eta * n_phi))
    eta, phi = (i_eta + u_eta) * d_eta - eta_max, (i_phi + u_phi) * d_phi
    direction = [np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)]
    return np.asarray(d_eta * d_phi * np.column_stack(direction))


def _columns(momentum: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """pT, eta, phi and mass of four-momenta; no mass is below 0, and eta is NaN at rest."""
    px, py, pz, e = momentum.T
    pt = np.hypot(px, py)
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(pz / pt)
    mass = np.sqrt(np.maximum(e**2 - pt**2 - pz**2, 0.0))
    return pt, eta, np.arctan2(py, px), mass
