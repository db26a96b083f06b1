"""Fast simulation over Geant4 in bins of energy: response, its spread, shares of the layers, widths
and cells, with statistical errors.

The showers of the fast simulation are shot with the energies and directions of the reference, so
neither the spectrum nor the impact points differ.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.geometry import Grid
from pfcalib.metrics.roc import Estimate
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation.hits import Hits
from pfcalib.simulation.particles import Particles, simulate_gun
from pfcalib.simulation.showers import simulate_showers

MIN_LAYER_E = 0.1  # GeV; widths are compared for showers with more in the layer
MIN_COUNT = 30  # showers of either sample in a bin
# share absolute, the others relative
LIMITS = {"response": 0.05, "rms": 0.15, "share": 0.03, "width": 0.15, "cells": 0.15}

Moments = dict[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of two samples in bins of true energy; arrays of shape (n_bins,), NaN in a bin
    with too few showers.
    """

    quantity: str  # of LIMITS
    layer: str  # empty if it is of the whole shower; widths say the direction too
    edges: NDArray[np.float64]  # (n_bins + 1,) GeV
    fast: NDArray[np.float64]
    fast_error: NDArray[np.float64]
    geant4: NDArray[np.float64]
    geant4_error: NDArray[np.float64]
    limit: float

    @property
    def deviation(self) -> NDArray[np.float64]:
        """fast / Geant4 - 1; fast - Geant4 for shares."""
        return (
            self.fast - self.geant4 if self.quantity == "share" else self.fast / self.geant4 - 1.0
        )

    @property
    def error(self) -> NDArray[np.float64]:
        """Statistical error of `deviation`."""
        if self.quantity == "share":
            return np.hypot(self.fast_error, self.geant4_error)
        return np.abs(self.fast / self.geant4) * np.hypot(
            self.fast_error / self.fast, self.geant4_error / self.geant4
        )

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Bins that hold enough showers."""
        return np.isfinite(self.deviation)

    @property
    def within(self) -> NDArray[np.bool_]:
        """Compared bins whose deviation is inside the limit."""
        return self.compared & (np.abs(self.deviation) <= self.limit)


class Speed(NamedTuple):
    """Showers and energy a second of processor time of one core."""

    showers: float
    energy: float  # GeV/s
    error: float  # relative, of both


def select_showers(
    showers: Showers, pdg_ids: Sequence[int], edges: Sequence[float], *, n_max: int
) -> Showers:
    """The first n_max showers of each kind of particle whose energy lies within the bins.

    Raises
    ------
    ValidationError
        If there is none of a kind.
    """
    mask = np.zeros(len(showers.e_true), dtype=np.bool_)
    for pdg_id in pdg_ids:
        chosen = np.flatnonzero(
            (showers.pdg_id == pdg_id) & (showers.e_true >= edges[0]) & (showers.e_true < edges[-1])
        )
        if not chosen.size:
            raise ValidationError(
                f"the showers hold no particle of PDG id {pdg_id} between {edges[0]:g} and "
                f"{edges[-1]:g} GeV"
            )
        mask[chosen[:n_max]] = True
    return showers.select(mask)


def simulate_copies(
    showers: Showers, grid: Grid, rng: np.random.Generator, *, copies: int
) -> tuple[Showers, Hits]:
    """Fast showers of the same particles, each `copies` times in a row, without field; the hits
    carry the calibration truth.

    Parameters
    ----------
    showers : Showers
        The reference: kind, energy and direction of each particle are taken from it.
    grid : Grid
    rng : numpy.random.Generator
    copies : int
        At least 1.
    """
    if copies < 1:
        raise ValueError(f"copies = {copies}: expected at least 1")
    pdg_id, e_true = np.repeat(showers.pdg_id, copies), np.repeat(showers.e_true, copies)
    eta, phi = np.repeat(showers.eta, copies), np.repeat(showers.phi, copies)
    hits = simulate_showers(Particles(np.arange(len(e_true)), pdg_id, e_true, eta, phi), grid, rng)
    return Showers(pdg_id, e_true, eta, phi, hits.offsets, hits.cell, hits.signal), hits


def energy_balance(hits: Hits) -> float:
    """Largest relative difference between the energy shot and the sum of its parts, over all
    events.
    """
    parts = hits.em + hits.non_em + hits.invisible + hits.escaped
    found = np.bincount(hits.event, parts, hits.n_events) + hits.e_dead + hits.e_leak
    return float(np.max(np.abs(found / hits.e_total - 1.0)))


def compare_showers(
    fast: Moments, e_fast: NDArray[np.float64], geant4: Moments, e_geant4: NDArray[np.float64], edges: Sequence[float], *,
    response_limit: float = LIMITS["response"],
) -> list[Comparison]:  # fmt: skip
    """All comparisons of one species.

    Parameters
    ----------
    fast, geant4 : dict of ndarray, shape (n,)
        As `metrics.fidelity.shower_moments` returns them.
    e_fast, e_geant4 : ndarray, shape (n,), GeV
        True energies.
    edges : sequence of float, GeV
        Bins of true energy.
    response_limit : float
        Tolerated relative difference of the mean response.

    Returns
    -------
    list of Comparison
        Mean response, its rms, mean number of cells; then share and both widths of each layer.
    """
    bins = np.asarray(edges, dtype=np.float64)
    samples = [(fast, e_fast), (geant4, e_geant4)]

    def compare(
        quantity: str,
        layer: str,
        estimate: Callable[[Moments, NDArray[np.float64], NDArray[np.bool_]], Estimate],
    ) -> Comparison:
        values = np.full((2, 2, len(bins) - 1), np.nan)
        for i, (moments, energy) in enumerate(samples):
            place = np.digitize(energy, bins) - 1
            values[i] = np.array(
                [estimate(moments, energy, place == b) for b in range(len(bins) - 1)]
            ).T
        limit = response_limit if quantity == "response" else LIMITS[quantity]
        return Comparison(
            quantity, layer, bins, values[0, 0], values[0, 1], values[1, 0], values[1, 1], limit
        )

    out = [
        compare("response", "", lambda m, _, b: mean(m["response"][b])),
        compare("rms", "", lambda m, _, b: rms(m["response"][b])),
        compare("cells", "", lambda m, _, b: mean(m["n_cells"][b])),
    ]
    for name in LAYER_NAMES:
        out.append(compare("share", name, functools.partial(_share, layer=name)))
        out += [
            compare("width", f"{axis} {name}", functools.partial(_width, layer=name, axis=axis))
            for axis in ("eta", "phi")
        ]
    return out


def mean(values: NDArray[np.float64]) -> Estimate:
    """Mean and its standard error; NaN for fewer than MIN_COUNT values."""
    if len(values) < MIN_COUNT:
        return Estimate(np.nan, np.nan)
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def rms(values: NDArray[np.float64]) -> Estimate:
    """Standard deviation and its standard error, sqrt((m4 - m2^2) / (4 m2 n)); NaN for fewer than
    MIN_COUNT values.
    """
    if len(values) < MIN_COUNT:
        return Estimate(np.nan, np.nan)
    squared = (values - np.mean(values)) ** 2
    variance = float(np.mean(squared))
    return Estimate(
        float(np.sqrt(variance)), float(np.std(squared) / np.sqrt(4.0 * variance * len(values)))
    )


def ratio_of_sums(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Estimate:
    """Sum of `part` over sum of `whole`, with the linearised error of a ratio of means; NaN for
    fewer than MIN_COUNT values.

    >>> ratio_of_sums(np.full(40, 1.0), np.full(40, 4.0))
    Estimate(value=0.25, error=0.0)
    """
    if len(whole) < MIN_COUNT:
        return Estimate(np.nan, np.nan)
    value = float(np.sum(part) / np.sum(whole))
    return Estimate(
        value, float(np.std(part - value * whole) * np.sqrt(len(whole)) / np.sum(whole))
    )


def layer_energy(moments: Moments, e_true: NDArray[np.float64], layer: str) -> NDArray[np.float64]:
    """EM-scale energy of each shower in a layer in GeV; 0 where the whole shower left nothing."""
    total = moments["response"] * e_true
    return np.where(total > 1e-6, moments[f"share_{layer}"] * total, 0.0)


def worst(comparisons: Sequence[Comparison], quantity: str) -> Estimate:
    """Largest |deviation| of a quantity over layers and bins, with the statistical error of that
    one.

    Raises
    ------
    ValueError
        If no bin was compared.
    """
    chosen = [c for c in comparisons if c.quantity == quantity]
    deviation = np.concatenate([np.abs(c.deviation[c.compared]) for c in chosen])
    error = np.concatenate([c.error[c.compared] for c in chosen])
    if not deviation.size:
        raise ValueError(f"{quantity}: no bin has {MIN_COUNT} showers of both samples")
    place = int(np.argmax(deviation))
    return Estimate(float(deviation[place]), float(error[place]))


def count_within(comparisons: Mapping[str, Sequence[Comparison]]) -> list[list[str | float]]:
    """One row a name and quantity: name, quantity, limit, then "passed / made" for each bin and for
    all.
    """
    rows: list[list[str | float]] = []
    for name, compared in comparisons.items():
        for quantity in LIMITS:
            chosen = [c for c in compared if c.quantity == quantity]
            passed, made = (
                np.sum([getattr(c, which) for c in chosen], axis=0)
                for which in ("within", "compared")
            )
            counts = [
                f"{p} / {m}"
                for p, m in zip([*passed, passed.sum()], [*made, made.sum()], strict=True)
            ]
            rows.append([name, quantity, chosen[0].limit, *counts])
    return rows


def measure_speed(
    grid: Grid, rng: np.random.Generator, *, n_events: int, repeats: int = 5
) -> Speed:
    """Showers a second of pi0 and pi+ in equal shares, flat in log E from 0.5 to 100 GeV, after a
    first call that compiles.

    Parameters
    ----------
    grid : Grid
    rng : numpy.random.Generator
    n_events : int
        Showers of each species in each of the repetitions, whose spread gives the error.
    repeats : int
    """
    guns = [
        simulate_gun(name, n_events, rng, energy=(0.5, 100.0), eta=(-0.05, 0.05), phi=(-0.05, 0.05))
        for name in ("pi0", "pi+")
    ]
    for particles in guns:
        simulate_showers(particles, grid, rng)
    seconds = np.empty(repeats)
    for i in range(repeats):
        start = time.process_time()
        for particles in guns:
            simulate_showers(particles, grid, rng)
        seconds[i] = time.process_time() - start
    spread = (
        float(np.std(seconds, ddof=1) / np.sqrt(repeats) / seconds.mean()) if repeats > 1 else 0.0
    )
    energy = sum(float(particles.energy.sum()) for particles in guns)
    return Speed(2 * n_events / float(seconds.mean()), energy / float(seconds.mean()), spread)


def _share(
    moments: Moments, e_true: NDArray[np.float64], inside: NDArray[np.bool_], layer: str
) -> Estimate:
    return ratio_of_sums(
        layer_energy(moments, e_true, layer)[inside], (moments["response"] * e_true)[inside]
    )


def _width(
    moments: Moments, e_true: NDArray[np.float64], inside: NDArray[np.bool_], layer: str, axis: str
) -> Estimate:
    lit = inside & (layer_energy(moments, e_true, layer) > MIN_LAYER_E)
    return mean(moments[f"width_{axis}_{layer}"][lit])
