"""Makes the numbers of `simulation.refine` from Geant4 showers, in a few minutes a species.

Parametrised showers of the same particles are shot. The soft hits, the distributions of each
coordinate at each energy and the networks of the flow follow one after the other, each from the
showers as those before it leave them; a share of the particles is held out of all of them, for the
AUC that is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW, Grid
from pfcalib.metrics.roc import auc
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation import morph
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.refine import (
    BANK_EDGES,
    DRIVE,
    FADE,
    LEVELS,
    SOFT,
    SPECIES,
    Refinement,
    Single,
    add_soft,
    count_soft,
    draw_hits,
    drive,
    flow_step,
    inputs_of,
    log_ratio,
    near,
    point,
    scores,
    standard,
    to_coordinates,
)
from pfcalib.simulation.showers import simulate_showers

FloatArray = NDArray[np.float64]

NODES = np.linspace(-0.3, 2.1, 13)  # log10(E / GeV)
WIDE = np.linspace(-0.7, 2.3, 13)
WIDE_ENERGIES = (0.2, FADE[1])  # GeV, of the showers that mean and scale are taken from
NODE_WIDTH = 0.18  # of the weights about a node
N_SOFT, N_COUNTS = 256, 32  # soft hits kept of each layer and bank, numbers of them of each node
FEWEST = 100  # showers behind a distribution


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineFitConfig:
    """How the step is learned.

    Parameters
    ----------
    copies : int
        Parametrised showers for each of Geant4's.
    n_wide : int
        Showers of 0.2 GeV to 2 TeV at |eta| < 0.7 on the barrel.
    networks, units, epochs : int
        Networks of the flow, their units in each of two layers, and passes for each.
    step : float
        Of the flow, in normal scores.
    held_out : float
        Share of Geant4's showers that is only judged on.
    seed : int
    """

    copies: int = 4
    n_wide: int = 6000
    networks: int = 5
    units: int = 64
    epochs: int = 8
    step: float = 0.4
    held_out: float = 0.2
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.copies, self.n_wide, self.networks, self.units, self.epochs) < 1:
            raise ConfigError("copies, n_wide, networks, units and epochs must be at least 1")
        if not 0.0 < self.held_out < 1.0:
            raise ConfigError(f"held_out must lie between 0 and 1, not {self.held_out}")


def fit_refinement(
    reference: Showers,
    species: str,
    fit: RefineFitConfig,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Refinement:
    """Learn the step for one species.

    Parameters
    ----------
    reference : Showers
        Geant4 showers on the window.
    species : str
        Of `simulation.refine.SPECIES`.
    fit : RefineFitConfig
    say : callable
        Takes a line for every network: AUC on what was held out.

    Raises
    ------
    ConfigError
        If there are too few showers of the species.
    """
    reference = reference.select(np.isin(reference.pdg_id, SPECIES[species]))
    n = len(reference.e_true)
    if n < 10 * FEWEST:
        raise ConfigError(f"{species}: {n} showers of Geant4 are too few to learn from")
    rng = np.random.default_rng(fit.seed)
    keras.utils.set_random_seed(fit.seed)
    shot = Particles(np.arange(n), reference.pdg_id, reference.e_true, reference.eta, reference.phi)
    columns = (np.repeat(column, fit.copies) for column in shot[1:])
    shots = Particles._make((np.arange(n * fit.copies), *columns))
    geant4 = Single(
        reference.offsets,
        reference.cell,
        np.column_stack([reference.signal, reference.signal]),
        reference.e_true,
        point(shot, WINDOW),
    )
    held = rng.random(n) < fit.held_out
    training = geant4.select(~held)
    bank, counts = soft_hits(training, rng)
    size = morph.N_MOMENTS
    nothing = np.zeros(0)
    of = Refinement(
        WIDE, nothing, nothing, np.zeros(size), NODES, counts, bank, nothing, nothing,
        np.eye(size), np.asarray(fit.step), *(np.zeros((0, 1)) for _ in range(5)),
    )  # fmt: skip
    wide, eta = shoot_wide(species, fit.n_wide, rng)
    of = standardise(of, coordinates(add_soft(of, wide, BARREL, rng), BARREL, rng), wide, eta)
    fast = add_soft(of, shoot(shots, WINDOW, rng), WINDOW, rng)
    log_e = np.log10(reference.e_true)
    tables, samples = [], []
    for single, copies in ((fast, fit.copies), (geant4, 1)):
        le, out = np.repeat(log_e, copies), np.repeat(held, copies)
        mean, scale = standard(of, le, np.zeros(len(le)))
        z = (coordinates(single, WINDOW, rng) - mean) / scale
        tables.append(quantiles(z[~out], le[~out]))
        samples.append((scores(z, tables[-1], NODES, le), np.isfinite(z), le, out))
    x = samples[0][0]
    values, vectors = np.linalg.eigh(np.cov(x.T) + 0.03 * np.eye(size))
    white = vectors / np.sqrt(values) @ vectors.T
    of = of._replace(fast=tables[0], reference=tables[1], white=white)
    return flow(of, samples[0], samples[1], fit, say)


def shoot(particles: Particles, grid: Grid, rng: np.random.Generator) -> Single:
    """Parametrised showers as they are."""
    hits = simulate_showers(particles, grid, rng, refine=False)
    values = np.column_stack([hits.signal, hits.em])
    return Single(hits.offsets, hits.cell, values, particles.energy, point(particles, grid))


def shoot_wide(species: str, n: int, rng: np.random.Generator) -> tuple[Single, FloatArray]:
    """Showers over all energies and directions of the barrel, and their eta."""
    low, high = np.log(WIDE_ENERGIES)
    eta = rng.uniform(-0.7, 0.7, n)
    particles = Particles(
        np.arange(n),
        np.full(n, SPECIES[species][0], np.int32),
        np.exp(rng.uniform(low, high, n)),
        eta,
        rng.uniform(-np.pi, np.pi, n),
    )
    return shoot(particles, BARREL, rng), eta


def coordinates(showers: Single, grid: Grid, rng: np.random.Generator) -> FloatArray:
    """Coordinates (n, D) of showers with a fresh jitter."""
    inside, offsets, cells = near(showers, grid)
    moments = morph.describe(offsets, np.ascontiguousarray(showers.values[inside, 0]), cells)
    return to_coordinates(moments, cells, rng.standard_exponential(moments.shape))


def soft_hits(geant4: Single, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """`Refinement.bank` and `Refinement.counts`."""
    owner, layer, signal = geant4.owner, WINDOW.layer[geant4.cell], geant4.values[:, 0]
    soft = np.flatnonzero(signal < SOFT)
    anchor = draw_hits(geant4, owner[soft], rng)
    cell, other = geant4.cell[soft], geant4.cell[anchor]
    apart = [axis[cell] - axis[other] for axis in (WINDOW.eta, WINDOW.phi)]
    rows = np.column_stack([*apart, signal[soft]])
    which = np.digitize(np.log10(geant4.energy[owner[soft]]), BANK_EDGES)
    bank = np.zeros((len(BANK_EDGES) + 1, WINDOW.n_layers, N_SOFT, 3))
    for i, k in np.ndindex(bank.shape[:2]):
        chosen = np.flatnonzero((which == i) & (layer[soft] == k))
        if chosen.size:
            bank[i, k] = rows[rng.choice(chosen, N_SOFT)]
    counts = np.zeros((len(DRIVE), WINDOW.n_layers, N_COUNTS))
    levels = (np.arange(N_COUNTS) + 0.5) / N_COUNTS
    for k, (number, place) in enumerate(
        zip(count_soft(geant4, WINDOW).T, drive(geant4, WINDOW).T, strict=True)
    ):
        for i, node in enumerate(DRIVE):
            weight = np.exp(-0.5 * ((place - node) / NODE_WIDTH) ** 2)
            if weight.sum() > 0.2 * FEWEST:
                counts[i, k] = np.round(weighted_quantiles(number, weight, levels))
            elif i:
                counts[i, k] = counts[i - 1, k]
    return bank, counts


def weighted_quantiles(x: FloatArray, weight: FloatArray, levels: FloatArray) -> FloatArray:
    """Quantiles of weighted values.

    >>> weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.ones(3), np.array([0.5])).tolist()
    [2.0]
    """
    order = np.argsort(x, kind="stable")
    below = np.cumsum(weight[order]) - 0.5 * weight[order]
    return np.interp(levels, below / weight.sum(), x[order])


def standardise(of: Refinement, c: FloatArray, showers: Single, eta: FloatArray) -> Refinement:
    """Mean, scale and slope of the coordinates of parametrised showers."""
    log_e, path = np.log10(showers.energy), np.cosh(eta) - 1.0
    known, shape = np.isfinite(c), (len(WIDE), c.shape[1])
    mean, scale = np.zeros(shape), np.ones(shape)
    slope = np.zeros(c.shape[1])
    for d in range(c.shape[1]):
        chosen = known[:, d]
        if chosen.sum() < FEWEST:
            continue
        x, le = c[chosen, d], log_e[chosen]
        weights = np.exp(-0.5 * ((le - WIDE[:, None]) / 0.25) ** 2)
        enough = weights.sum(axis=1) > 0.3 * FEWEST
        means, spread = np.full((2, len(WIDE)), np.nan)
        for k in np.flatnonzero(enough):  # a plain mean would be bent inwards at both ends
            line = np.polyfit(le - WIDE[k], x, 1, w=np.sqrt(weights[k]))
            left = x - np.polyval(line, le - WIDE[k])
            means[k] = line[1]
            spread[k] = np.sqrt(max(np.average(left**2, weights=weights[k]), 0.0025))
        mean[:, d] = np.interp(WIDE, WIDE[enough], means[enough])
        scale[:, d] = np.interp(WIDE, WIDE[enough], spread[enough])
        left = (x - np.interp(le, WIDE, mean[:, d])) / np.interp(le, WIDE, scale[:, d])
        far = path[chosen] - path[chosen].mean()
        slope[d] = np.sum(far * left) / np.sum(far**2)
        mean[:, d] -= slope[d] * path[chosen].mean() * scale[:, d]
    return of._replace(mean=mean, scale=scale, slope=slope)


def quantiles(z: FloatArray, log_e: FloatArray) -> FloatArray:
    """Tables of quantiles at LEVELS about each node, (n_nodes, D, n_levels), strictly rising."""
    table = np.full((len(NODES), z.shape[1], len(LEVELS)), np.nan)
    for i, node in enumerate(NODES):
        weight = np.exp(-0.5 * ((log_e - node) / NODE_WIDTH) ** 2)
        for d in range(z.shape[1]):
            w, x = weight[np.isfinite(z[:, d])], z[np.isfinite(z[:, d]), d]
            if w.sum() ** 2 > FEWEST * np.sum(w**2):
                table[i, d] = weighted_quantiles(x, w, ndtr(LEVELS))
    for d in range(z.shape[1]):
        enough = np.isfinite(table[:, d, 0])
        for k, level in enumerate(LEVELS):
            table[:, d, k] = (
                np.interp(NODES, NODES[enough], table[enough, d, k]) if enough.any() else level
            )
    return table + 1e-4 * LEVELS


_Sample = tuple[FloatArray, NDArray[np.bool_], FloatArray, NDArray[np.bool_]]


def flow(
    of: Refinement, fast: _Sample, geant4: _Sample, fit: RefineFitConfig, say: Callable[[str], None]
) -> Refinement:
    """Train one network after the other and keep those that bring the showers closer, by the AUC
    of the next network on what was held out; samples are (scores, known, log10 E, held out).
    """
    x, known, log_e, held = fast
    y, _, log_e_y, held_y = geant4
    is_geant4 = np.concatenate([np.ones(len(y), np.bool_), np.zeros(len(x), np.bool_)])
    out, weight = np.concatenate([held_y, held]), np.where(is_geant4, 1.0, 1.0 / fit.copies)
    areas: list[float] = []
    for k in range(fit.networks):
        table = np.concatenate([inputs_of(of, y, log_e_y), inputs_of(of, x, log_e)])
        network = train(table[~out], is_geant4[~out], weight[~out], fit)
        w1, b1, w2, b2, w3, _ = network
        new = (w1, b1, w2, b2, w3)
        layers = (
            np.concatenate([old, w[None]]) if k else w[None]
            for old, w in zip(of[-5:], new, strict=True)
        )
        of = Refinement(*of[:-5], *layers)
        score = log_ratio(of, k, table)[0]
        area = auc(score[out], is_geant4[out], weights=weight[out])[0]
        x = flow_step(of, k, x, log_e, known)
        areas.append(area)
        say(f"network {k + 1}: AUC {area:.3f} on what was held out, before its step")
    kept = int(np.argmin(areas))
    say(f"{kept} of {fit.networks} networks kept")
    return Refinement(*of[:-5], *(weights[:kept] for weights in of[-5:]))


def train(
    table: FloatArray, is_geant4: NDArray[np.bool_], weight: FloatArray, fit: RefineFitConfig
) -> list[FloatArray]:
    """Weights and biases of a classifier."""
    layers = [keras.layers.Dense(fit.units, activation="swish") for _ in range(2)]
    network = keras.Sequential([keras.Input((table.shape[1],)), *layers, keras.layers.Dense(1)])
    batch = 512
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, fit.epochs * (len(table) // batch + 1))
    network.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    network.fit(
        table.astype(np.float32),
        is_geant4.astype(np.float32),
        sample_weight=weight.astype(np.float32),
        epochs=fit.epochs,
        batch_size=batch,
        verbose=0,
    )
    return [w.astype(np.float64) for w in network.get_weights()]
