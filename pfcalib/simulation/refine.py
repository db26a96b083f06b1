"""The learned step behind the parametrised showers: each shower is moved to where Geant4's lie in
the space of its moments, and its hits are bent to the new moments.

1. Soft hits that the parametrisation does not make are added until a layer has as many as a layer
   of Geant4 with that signal may have, as far from the others and as strong.
2. Coordinates: total signal and ratios of layers, size and shape of the widths, core, number of
   cells over three sigma, the two hottest cells; each becomes a normal score by its distribution at
   this energy.
3. A few small networks, each trained to tell the showers so far from Geant4's, move the scores
   up their gradient: the flow that decreases the Kullback-Leibler divergence (Jordan, Kinderlehrer,
   Otto, SIAM J. Math. Anal. 29 (1998) 1), with the log ratio of densities from a classifier.
4. The scores go back to moments by Geant4's distributions, and `morph.bend` gives the hits them.

Where Geant4's showers become few the step fades: hard showers that are bent without a measure grow
second maxima, which become clusters.

`training.refine_fit` makes the numbers; those in the package are of neutral pions, since charged
ones came no closer to Geant4's by it. Truth moves with the signal, and the truth of the cells of a
shower is scaled to the sum it had, so that the energy stays balanced.
"""

from __future__ import annotations

import functools
import os
import zipfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.errors import BadFileError
from pfcalib.geometry import Grid
from pfcalib.simulation import morph
from pfcalib.simulation.detector import FRONT
from pfcalib.simulation.digitise import Hits, noise_sigma
from pfcalib.simulation.kernels import kernel
from pfcalib.simulation.particles import Particles, propagate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SPECIES = {"pi0": (111,), "pion": (211, -211)}  # what can be refined
WINDOW_SIZE = 0.2  # hits farther from the particle's direction take no part in moments
SOFT = 0.010  # GeV, hits below are counted as soft
DRIVE = np.linspace(-3.0, 1.5, 13)  # nodes of `drive`
BANK_EDGES = (0.3, 0.9)  # log10(E / GeV) between the banks of soft hits
LEVELS = np.linspace(-3.2, 3.2, 41)  # normal scores of the tables of quantiles
EMPTY = 0.05  # GeV, a shower below has no total
LARGEST_STEP = 1.5  # in normal scores, of one network
FADE = (50.0, 200.0)  # GeV, between which the step fades: few of Geant4's showers were above
_ORDER = (1, 3, 0, 4, 5, 6)  # each layer is compared with EMB2 and those before it
_TOTAL = morph.MIDDLE  # the coordinate that the energy of EMB2 leaves free
_ETA, _PHI = slice(morph.ETA, morph.PHI), slice(morph.PHI, morph.CORE)
_POINT2 = (0.5 * morph.POINT) ** 2  # squares of widths too small to matter, cells
_LOGIT = 0.005  # softens the ends of the core's share


class Refinement(NamedTuple):
    """All numbers of one species; energies are nodes in log10(E / GeV), D the coordinates."""

    wide: FloatArray  # (n_wide,) nodes of mean and scale
    mean: FloatArray  # (n_wide, D) of the coordinates of parametrised showers at eta = 0
    scale: FloatArray  # (n_wide, D) their standard deviation
    slope: FloatArray  # (D,) their change with cosh(eta) - 1, in units of scale
    nodes: FloatArray  # (n_nodes,) of all that follows
    counts: FloatArray  # (n_drive, n_layers, n) soft hits of Geant4's showers, by `drive`
    bank: FloatArray  # (n_banks, n_layers, n, 3) of them: d_eta, d_phi to another hit, GeV
    fast: FloatArray  # (n_nodes, D, n_levels) quantiles of parametrised showers
    reference: FloatArray  # the same of Geant4's
    white: FloatArray  # (D, D) makes scores uncorrelated, of unit variance
    step: FloatArray  # () of the flow
    # weights and biases of all networks: (n_networks, inputs, outputs), (n_networks, outputs), ...
    w1: FloatArray
    b1: FloatArray
    w2: FloatArray
    b2: FloatArray
    w3: FloatArray


def write_refinements(path: str | os.PathLike[str], made: dict[str, Refinement]) -> None:
    """Write the numbers of all species in single precision (.npz, no pickle)."""
    arrays = {
        f"{species}.{name}": value.astype(np.float32)
        for species, refinement in made.items()
        for name, value in refinement._asdict().items()
    }
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_refinements(path: str | os.PathLike[str]) -> dict[str, Refinement]:
    """Numbers that `write_refinements` has written.

    Raises
    ------
    BadFileError
        If it is not such a file.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {
                species: Refinement(
                    *(file[f"{species}.{name}"].astype(np.float64) for name in Refinement._fields)
                )
                for species in sorted({key.partition(".")[0] for key in file.files})
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadFileError(f"{path}: not a file of `pfcalib refine-showers` ({error})") from error


@functools.cache
def packaged_refinements() -> dict[str, Refinement]:
    """The numbers that come with the package."""
    return read_refinements(Path(str(resources.files("pfcalib"))) / "data" / "refinement.npz")


class Single(NamedTuple):
    """Showers of single particles on a grid, with what their moments need."""

    offsets: IntArray  # (n + 1,)
    cell: NDArray[np.int32]  # (n_hits,)
    values: FloatArray  # (n_hits, n_values): signal first, then truth
    energy: FloatArray  # (n,) GeV
    axis: FloatArray  # (2, n, n_layers) eta and phi of where each particle points to

    @property
    def owner(self) -> IntArray:
        """Shower of each hit."""
        return np.repeat(np.arange(len(self.energy)), np.diff(self.offsets))

    def select(self, chosen: NDArray[np.bool_]) -> Single:
        """The showers where it is true."""
        hits = chosen[self.owner]
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chosen])])
        axis = self.axis[:, chosen]
        return Single(offsets, self.cell[hits], self.values[hits], self.energy[chosen], axis)


def point(particles: Particles, grid: Grid, *, field: float = 0.0) -> FloatArray:
    """Eta and phi at which each particle, if it went on straight from the front of the material,
    would cross the middle of each layer; shape (2, n, n_layers).
    """
    entry = propagate(particles, field=field)
    x = np.array([layer.r for layer in grid.layers])
    u_x, u_y, u_z = (entry.direction[:, k, None] for k in range(3))
    y, z = u_y / u_x * (x - FRONT), entry.z[:, None] + u_z / u_x * (x - FRONT)
    return np.array([np.arcsinh(z / np.hypot(x, y)), entry.phi_axis[:, None] + np.arctan2(y, x)])


def merge(
    owner: IntArray, cell: NDArray[np.integer], values: FloatArray, n: int, n_cells: int
) -> tuple[IntArray, NDArray[np.int32], FloatArray]:
    """Offsets, cells and values of hits in any order, those of one cell of an owner added up."""
    key, place = np.unique(owner * n_cells + cell, return_inverse=True)
    added = np.column_stack([np.bincount(place, v, len(key)) for v in values.T]).astype(np.float64)
    offsets = np.searchsorted(key, np.arange(n + 1) * n_cells)
    return offsets.astype(np.int64), (key % n_cells).astype(np.int32), added


def between(nodes: FloatArray, x: FloatArray) -> tuple[IntArray, FloatArray]:
    """Node below each x and the way to the next, 0 to 1; clamped at both ends."""
    place = np.interp(x, nodes, np.arange(len(nodes)))
    below = np.minimum(place.astype(np.int64), len(nodes) - 2)
    return below, place - below


def at(table: FloatArray, nodes: FloatArray, x: FloatArray) -> FloatArray:
    """Rows of a table at each x, interpolated; shape (len(x), ...)."""
    below, way = between(nodes, x)
    return table[below] + way[:, None] * (table[below + 1] - table[below])


def strength(log_e: FloatArray) -> FloatArray:
    """Share of the step that showers are given by their energy: all below FADE, none above."""
    return np.interp(log_e, np.log10(FADE), (1.0, 0.0))


def add_soft(of: Refinement, showers: Single, grid: Grid, rng: np.random.Generator) -> Single:
    """Showers with soft hits added beside hits drawn by their signal; their truth is
    electromagnetic.
    """
    n, log_e = len(showers.energy), np.log10(showers.energy)
    place = np.interp(drive(showers, grid), DRIVE, np.arange(len(DRIVE)))
    node = (place + rng.random(place.shape)).astype(np.int64)
    drawn = rng.integers(of.counts.shape[2], size=place.shape)
    missing = of.counts[node, np.arange(grid.n_layers), drawn] - count_soft(showers, grid)
    missing = np.maximum(missing, 0.0) * strength(log_e)[:, None]
    number = np.floor(missing + rng.random(n)[:, None]).astype(np.int64)
    number *= (np.diff(showers.offsets) > 0)[:, None]
    owner, layer = np.divmod(np.repeat(np.arange(number.size), number.ravel()), grid.n_layers)
    anchor = draw_hits(showers, owner, rng)
    row = rng.integers(of.bank.shape[2], size=len(layer))
    d_eta, d_phi, energy = of.bank[np.digitize(log_e[owner], BANK_EDGES), layer, row].T
    eta, phi = (
        of_cell[showers.cell[anchor]] + d * rng.choice([-1.0, 1.0], len(d))
        for of_cell, d in ((grid.eta, d_eta), (grid.phi, d_phi))
    )
    cell = np.full(len(owner), -1)
    for k in range(grid.n_layers):
        cell[layer == k] = grid.locate(k, eta[layer == k], phi[layer == k])
    inside = (cell >= 0) & (energy > 0.0)
    soft = np.zeros((int(inside.sum()), showers.values.shape[1]))
    soft[:, :2] = energy[inside, None]
    offsets, cells, values = merge(
        np.concatenate([showers.owner, owner[inside]]),
        np.concatenate([showers.cell, cell[inside]]),
        np.concatenate([showers.values, soft]),
        n,
        grid.n_cells,
    )
    return showers._replace(offsets=offsets, cell=cells, values=values)


def per_layer(showers: Single, grid: Grid, weight: FloatArray) -> FloatArray:
    """Sum of the weights of the hits in each layer, shape (n, n_layers)."""
    n, key = len(showers.energy), showers.owner * grid.n_layers + grid.layer[showers.cell]
    added = np.bincount(key, weight, n * grid.n_layers).astype(np.float64)
    return added.reshape(n, grid.n_layers)


def drive(showers: Single, grid: Grid) -> FloatArray:
    """What the number of soft hits of a layer goes with: log10 of its signal in GeV, with a tenth
    of those next to it and 1 MeV added; shape (n, n_layers).
    """
    energy = np.pad(per_layer(showers, grid, showers.values[:, 0]), ((0, 0), (1, 1)))
    return np.log10(energy[:, 1:-1] + 0.1 * (energy[:, :-2] + energy[:, 2:]) + 1e-3)


def count_soft(showers: Single, grid: Grid) -> FloatArray:
    """Number of soft hits in each layer, shape (n, n_layers)."""
    return per_layer(showers, grid, (showers.values[:, 0] < SOFT).astype(np.float64))


def draw_hits(showers: Single, owner: IntArray, rng: np.random.Generator) -> IntArray:
    """A hit of each owner, drawn by its signal; the owners must have some."""
    below = np.concatenate([[0.0], np.cumsum(showers.values[:, 0])])
    first, last = showers.offsets[owner], showers.offsets[owner + 1]
    at_signal = below[first] + rng.random(len(owner)) * (below[last] - below[first])
    return np.clip(np.searchsorted(below, at_signal, side="right") - 1, first, last - 1)


def near(showers: Single, grid: Grid) -> tuple[NDArray[np.bool_], IntArray, morph.Cells]:
    """Which hits take part in moments, with the offsets and the geometry of these alone."""
    owner, layer = showers.owner, grid.layer[showers.cell]
    d_eta = grid.eta[showers.cell] - showers.axis[0, owner, layer]
    d_phi = grid.phi[showers.cell] - showers.axis[1, owner, layer]
    d_phi = (d_phi + np.pi) % (2.0 * np.pi) - np.pi
    inside = (np.abs(d_eta) < WINDOW_SIZE) & (np.abs(d_phi) < WINDOW_SIZE)
    seen = 3.0 * noise_sigma(grid)
    size = np.array([[getattr(k, name) for k in grid.layers] for name in ("d_eta", "d_phi")])
    offsets = np.concatenate([[0], np.cumsum(inside)])[showers.offsets]
    cells = layer[inside], d_eta[inside], d_phi[inside], seen[showers.cell[inside]]
    return inside, offsets, morph.Cells(*cells, size, seen[grid.offset[:-1]])


def to_coordinates(moments: FloatArray, cells: morph.Cells, jitter: FloatArray) -> FloatArray:
    """Coordinates of moments, both (n, D); NaN where a moment says nothing.

    Parameters
    ----------
    moments : ndarray, shape (n, D)
        As of `morph.describe`.
    cells : morph.Cells
    jitter : ndarray, shape (n, D)
        Positive numbers of size 1, that make what is 0 or an integer continuous; the same must go
        into `to_moments`.
    """
    out, soft = np.empty_like(moments), cells.threshold / 30.0
    energy, rest = moments[:, : morph.ETA], moments[:, morph.MIDDLE].copy()
    for k in _ORDER:
        out[:, k] = np.log((energy[:, k] + soft[k] * (1.0 + jitter[:, k])) / (rest + soft[k]))
        rest += energy[:, k]
    hottest, second = moments[:, morph.HOTTEST], moments[:, morph.SECOND]
    eta, phi = _squares(moments, cells)
    j_eta, j_phi = (_POINT2 * (0.5 + jitter[:, part]) for part in (_ETA, _PHI))
    out[:, _ETA] = np.log(eta + phi + j_eta)
    out[:, _PHI] = np.log((eta + j_eta) / (phi + j_phi))
    core = (moments[:, morph.CORE] + _LOGIT * (0.5 + jitter[:, morph.CORE])) / (1.0 + 4.0 * _LOGIT)
    core = np.minimum(core, 1.0 - _LOGIT)
    out[:, morph.CORE] = np.log(core / (1.0 - core))
    fraction = 1.0 - np.exp(-jitter[:, morph.CELLS])
    out[:, morph.CELLS] = np.log(moments[:, morph.CELLS] + fraction + 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[:, morph.HOTTEST] = np.log(hottest / rest)
        out[:, morph.SECOND] = np.log(second / hottest + 0.01)
        out[:, _TOTAL] = np.log(rest)
    return np.where(_tells(energy, cells), out, np.nan)


def to_moments(
    coordinates: FloatArray, before: FloatArray, cells: morph.Cells, jitter: FloatArray
) -> FloatArray:
    """Inverse of `to_coordinates`; moments stay as `before` where a coordinate is NaN."""
    out, soft = before.copy(), cells.threshold / 30.0
    c, known = coordinates, np.isfinite(coordinates)
    rest = np.where(known[:, _TOTAL], np.exp(c[:, _TOTAL]), before[:, : morph.ETA].sum(axis=1))
    total = rest
    for k in reversed(_ORDER):
        ratio = np.exp(c[:, k])
        part = (ratio * (rest + soft[k]) - soft[k] * (1.0 + jitter[:, k])) / (1.0 + ratio)
        out[:, k] = np.clip(part, 0.0, rest)
        rest = rest - out[:, k]
    out[:, morph.MIDDLE] = rest
    j_eta, j_phi = (_POINT2 * (0.5 + jitter[:, part]) for part in (_ETA, _PHI))
    both, ratio = np.maximum(np.exp(c[:, _ETA]) - j_eta, 0.0), np.exp(c[:, _PHI])
    eta = np.clip((ratio * (both + j_phi) - j_eta) / (1.0 + ratio), 0.0, both)
    core = (1.0 + 4.0 * _LOGIT) / (1.0 + np.exp(-c[:, morph.CORE])) - _LOGIT * (
        0.5 + jitter[:, morph.CORE]
    )
    hottest = np.minimum(np.exp(c[:, morph.HOTTEST]), 0.98) * total
    new = np.column_stack([
        np.sqrt(eta) * cells.size[0],
        np.sqrt(both - eta) * cells.size[1],
        np.clip(core, 0.0, 1.0),
        np.maximum(np.floor(np.exp(c[:, morph.CELLS]) - 0.5), 0.0),
        hottest,
        np.clip(np.exp(c[:, morph.SECOND]) - 0.01, 0.0, 1.0) * hottest,
    ])  # fmt: skip
    out[:, morph.ETA :] = np.where(known[:, morph.ETA :], new, before[:, morph.ETA :])
    return out


def _squares(moments: FloatArray, cells: morph.Cells) -> tuple[FloatArray, FloatArray]:
    """Squared widths in eta and phi in units of cells, each (n, n_layers)."""
    return (moments[:, _ETA] / cells.size[0]) ** 2, (moments[:, _PHI] / cells.size[1]) ** 2


def _tells(energy: FloatArray, cells: morph.Cells) -> NDArray[np.bool_]:
    """Which coordinates say something: widths in layers over three sigma only."""
    lit, any_ = energy > cells.threshold, (energy.sum(axis=1) > EMPTY)[:, None]
    of_layers = np.ones_like(lit)
    of_layers[:, _TOTAL] = any_[:, 0]
    return np.hstack([
        of_layers, lit, lit, lit[:, [morph.MIDDLE]], np.ones_like(any_), any_, any_
    ])  # fmt: skip


@kernel
def look_up(x: FloatArray, table_x: FloatArray, table_y: FloatArray) -> FloatArray:
    """y at each x (n, D) on rising curves (n, D, n_levels), or (n_levels,) for either; a straight
    line goes on at both ends for as long as three cells of the table.
    """
    out = np.empty_like(x)
    for k in range(x.shape[0]):
        for d in range(x.shape[1]):
            xs, ys = table_x[k, d], table_y[k, d]
            i = min(max(np.searchsorted(xs, x[k, d]) - 1, 0), len(xs) - 2)
            way = (x[k, d] - xs[i]) / (xs[i + 1] - xs[i])
            out[k, d] = ys[i] + min(max(way, -3.0), 4.0) * (ys[i + 1] - ys[i])
    return out


def scores(x: FloatArray, table: FloatArray, nodes: FloatArray, log_e: FloatArray) -> FloatArray:
    """Normal scores of standardised coordinates (n, D); 0 for NaN."""
    curves = _curves(table, nodes, log_e)
    found = look_up(np.nan_to_num(x), curves, np.broadcast_to(LEVELS, curves.shape))
    return np.where(np.isfinite(x), np.clip(found, -5.0, 5.0), 0.0)


def unscored(x: FloatArray, table: FloatArray, nodes: FloatArray, log_e: FloatArray) -> FloatArray:
    """Inverse of `scores`."""
    curves = _curves(table, nodes, log_e)
    return look_up(x, np.broadcast_to(LEVELS, curves.shape), curves)


def _curves(table: FloatArray, nodes: FloatArray, log_e: FloatArray) -> FloatArray:
    below, way = between(nodes, log_e)
    return table[below] + way[:, None, None] * (table[below + 1] - table[below])


def log_ratio(of: Refinement, k: int, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Output of network k, the log of Geant4's density over that of the showers so far but for a
    constant, and its gradient; inputs and gradient (n, D + 1).
    """
    first = inputs @ of.w1[k] + of.b1[k]
    gate1 = 1.0 / (1.0 + np.exp(-first))
    second = first * gate1 @ of.w2[k] + of.b2[k]
    gate2 = 1.0 / (1.0 + np.exp(-second))
    slope = of.w3[k, :, 0] * gate2 * (1.0 + second * (1.0 - gate2))
    slope = slope @ of.w2[k].T * gate1 * (1.0 + first * (1.0 - gate1))
    return second * gate2 @ of.w3[k, :, 0], slope @ of.w1[k].T


def inputs_of(of: Refinement, x: FloatArray, log_e: FloatArray) -> FloatArray:
    """What the networks take, (n, D + 1): uncorrelated scores, and log10 of the energy."""
    clamped = np.clip(log_e, of.nodes[0], of.nodes[-1])
    return np.column_stack([x @ of.white, clamped - of.nodes.mean()])


def flow_step(
    of: Refinement, k: int, x: FloatArray, log_e: FloatArray, known: NDArray[np.bool_]
) -> FloatArray:
    """Scores after the step of network k; what is not known stays."""
    gradient = log_ratio(of, k, inputs_of(of, x, log_e))[1][:, :-1]
    # the step in uncorrelated scores, back among the correlated ones
    move = np.where(known, of.step * gradient @ np.linalg.inv(of.white), 0.0)
    length = np.linalg.norm(move, axis=1, keepdims=True)
    return x + move * np.minimum(1.0, LARGEST_STEP / np.maximum(length, 1e-9))


def standard(of: Refinement, log_e: FloatArray, eta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and scale of the coordinates of parametrised showers, each (n, D)."""
    scale = at(of.scale, of.wide, log_e)
    return at(of.mean, of.wide, log_e) + (np.cosh(eta) - 1.0)[:, None] * of.slope * scale, scale


def transport(
    of: Refinement, moments: FloatArray, cells: morph.Cells, log_e: FloatArray, eta: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Moments (n, D) that Geant4 could have given instead."""
    jitter = rng.standard_exponential(moments.shape)
    coordinates = to_coordinates(moments, cells, jitter)
    mean, scale = standard(of, log_e, eta)
    known = np.isfinite(coordinates)
    x = scores((coordinates - mean) / scale, of.fast, of.nodes, log_e)
    for k in range(len(of.w1)):
        x = flow_step(of, k, x, log_e, known)
    new = unscored(x, of.reference, of.nodes, log_e) * scale + mean
    new = coordinates + strength(log_e)[:, None] * (new - coordinates)
    return to_moments(np.where(known, new, np.nan), moments, cells, jitter)


def refine_single(
    of: Refinement, showers: Single, eta: FloatArray, grid: Grid, rng: np.random.Generator
) -> Single:
    """Refined showers of one species."""
    n, owned = len(showers.energy), _sums(showers)
    showers = add_soft(of, showers, grid, rng)
    inside, offsets, cells = near(showers, grid)
    signal, owner = showers.values[:, 0], showers.owner
    found = morph.describe(offsets, signal[inside], cells)
    wanted = transport(of, found, cells, np.log10(showers.energy), eta, rng)
    after = signal.copy()
    after[inside] = morph.bend(offsets, signal[inside], cells, wanted)
    layer = grid.layer[showers.cell]
    growth = np.clip(wanted[:, : morph.ETA] / np.maximum(found[:, : morph.ETA], 1e-9), 0.2, 5.0)
    after[~inside] *= growth[owner, layer][~inside]
    factor = np.where(signal > 0.0, after / np.maximum(signal, 1e-12), 1.0)
    truth = showers.values[:, 1:] * factor[:, None]
    # a shower whose cells with truth have all gone dark keeps the truth where it was
    dark = np.bincount(owner, truth.sum(axis=1), n) <= 0.0
    truth = np.where(dark[owner, None], showers.values[:, 1:], truth)
    have = np.maximum(np.bincount(owner, truth.sum(axis=1), n), 1e-300)
    values = np.column_stack([signal * factor, truth * (owned / have)[owner, None]])
    return showers._replace(values=values)


def _sums(showers: Single) -> FloatArray:
    """Truth of all cells of each shower in GeV."""
    truth = showers.values[:, 1:].sum(axis=1)
    return np.bincount(showers.owner, truth, len(showers.energy)).astype(np.float64)


def refine_hits(
    hits: Hits,
    particles: Particles,
    grid: Grid,
    rng: np.random.Generator,
    *,
    field: float = 0.0,
    refinements: dict[str, Refinement] | None = None,
) -> Hits:
    """Refined showers of single particles; those of other species stay as they are.

    Parameters
    ----------
    hits : Hits
        Showers as parametrised, one a particle.
    particles : Particles
        What was shot, in the order of the hits.
    grid : Grid
    rng : numpy.random.Generator
        Source of soft hits and of the jitter.
    field : float, tesla
        Solenoid up to the coil.
    refinements : dict of Refinement, optional
        By species, those of the package by default.
    """
    values = np.column_stack([hits.signal, hits.em, hits.non_em, hits.invisible, hits.escaped])
    axis = point(particles, grid, field=field)
    every = Single(hits.offsets, hits.cell, values, particles.energy, axis)
    left, parts = np.ones(hits.n_events, np.bool_), []
    for species, of in (refinements or packaged_refinements()).items():
        chosen = np.isin(particles.pdg_id, SPECIES[species]) & (particles.energy < FADE[1])
        if chosen.any():
            left &= ~chosen
            made = refine_single(of, every.select(chosen), particles.eta[chosen], grid, rng)
            parts.append((np.flatnonzero(chosen)[made.owner], made.cell, made.values))
    kept = every.select(left)
    parts.append((np.flatnonzero(left)[kept.owner], kept.cell, kept.values))
    owner, cell, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    lit = values.any(axis=1)
    offsets, cell, values = merge(owner[lit], cell[lit], values[lit], hits.n_events, grid.n_cells)
    columns = (np.ascontiguousarray(column) for column in values.T)
    return Hits._make((offsets, cell, *columns, *hits[7:]))
