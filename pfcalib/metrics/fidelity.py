"""How close two shower simulations are: moments of single showers, compared in bins of energy and
by a classifier.

Both samples go through the same code. The fast simulation is shot with the energies and directions
of the reference, so neither the spectrum nor the impact points differ. The figures of merit are
ratios of means, differences of shares, and the area under the ROC curve of boosted trees that try
to tell the simulations apart (a classifier two-sample test, arXiv:1610.06545: 0.5 means that no
difference was found, 1 that every shower is told apart).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # of scikit-learn

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.geometry import Grid
from pfcalib.metrics.curve import UNKNOWN, Curve, Estimate
from pfcalib.metrics.roc import auc
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers

FloatArray = NDArray[np.float64]
Moments = dict[str, FloatArray]  # of single showers, each (n,)

E_EDGES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # GeV
EMB2 = 2  # index of the layer
MIN_LAYER_E = 0.1  # GeV; widths are compared for showers with more in the layer
MIN_COUNT = 30  # showers of either sample in a bin
# share absolute, the others relative
LIMITS = {"response": 0.05, "rms": 0.15, "share": 0.03, "width": 0.15, "cells": 0.15}
FEATURES = (
    "response",
    *(f"share_{name}" for name in LAYER_NAMES[:6]),
    *(f"width_{axis}_{name}" for axis in ("eta", "phi") for name in LAYER_NAMES[1:4]),
    "width_eta_TileBar0",
    "n_cells",
    "max_share",
    "second_share",
    "depth",
    "depth_width",
    "core",
)


class Separation(NamedTuple):
    """How well two samples are told apart; scores are those of trees that have not seen the
    shower.
    """

    auc: Estimate  # mean of those of the folds
    score: FloatArray  # (n,), larger for the fast simulation
    is_fast: NDArray[np.bool_]  # (n,)
    importance: dict[str, float]  # loss of AUC when a moment is shuffled, falling


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of two samples in the same bins of true energy in GeV, NaN in a bin with too few
    showers.
    """

    quantity: str  # of LIMITS
    layer: str  # empty if it is of the whole shower; widths say the direction too
    fast: Curve
    geant4: Curve
    limit: float

    @property
    def deviation(self) -> Curve:
        """fast / Geant4 - 1, or fast - Geant4 for shares, with its statistical error."""
        if self.quantity == "share":
            error = np.hypot(self.fast.error, self.geant4.error)
            return Curve(self.fast.edges, self.fast.value - self.geant4.value, error)
        ratio = self.fast.ratio(self.geant4)
        return dataclasses.replace(ratio, value=ratio.value - 1.0)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Bins that hold enough showers, shape (n_bins,)."""
        return np.isfinite(self.deviation.value)

    @property
    def within(self) -> NDArray[np.bool_]:
        """Compared bins whose deviation is inside the limit, shape (n_bins,)."""
        return self.compared & (np.abs(self.deviation.value) <= self.limit)


def shower_moments(showers: Showers, grid: Grid, sigma: FloatArray) -> dict[str, FloatArray]:
    """Twenty and more moments of each shower.

    Parameters
    ----------
    showers : Showers
    grid : Grid
    sigma : ndarray, shape (n_cells,), GeV
        Noise of each cell; cells over three sigma are counted, no noise is added.

    Returns
    -------
    dict of ndarray, shape (n,)
        ``response``; ``share_<layer>``; ``width_eta_<layer>`` and ``width_phi_<layer>``, NaN in a
        layer without signal; ``n_cells``; ``max_share``, ``second_share`` of the two hottest cells;
        ``depth`` and ``depth_width`` in mm; ``offset_eta``, ``offset_phi`` of the barycentre in
        EMB2; ``core`` = share of EMB2 within 1.5 cells of the particle's direction. Shares of a
        shower without signal are 0.
    """
    n, cell, e = len(showers.e_true), showers.cell, showers.signal
    event = np.repeat(np.arange(n), np.diff(showers.offsets))
    d_eta, d_phi = grid.eta[cell] - showers.eta[event], grid.phi[cell] - showers.phi[event]
    key = event * grid.n_layers + grid.layer[cell]

    def per_layer(weight: FloatArray) -> FloatArray:
        return _sum(key, weight, n * grid.n_layers).reshape(n, grid.n_layers)

    e_total = _sum(event, e, n)
    total = np.maximum(e_total, 1e-9)
    e_layer = per_layer(e)
    safe = np.where(e_layer > 1e-6, e_layer, np.nan)
    out = {"response": e_total / showers.e_true}
    out |= {f"share_{layer.name}": e_layer[:, i] / total for i, layer in enumerate(grid.layers)}
    for label, d in (("eta", d_eta), ("phi", d_phi)):
        mean = per_layer(e * d) / safe
        width = np.sqrt(np.maximum(per_layer(e * d * d) / safe - mean**2, 0.0))
        out |= {f"width_{label}_{layer.name}": width[:, i] for i, layer in enumerate(grid.layers)}
        out[f"offset_{label}"] = mean[:, EMB2]
    out["n_cells"] = _sum(event, np.where(e > 3.0 * sigma[cell], 1.0, 0.0), n)
    hottest = _hottest(showers, event) / total[:, None]
    out["max_share"], out["second_share"] = hottest[:, 0], hottest[:, 1]
    out["depth"] = _sum(event, e * grid.r[cell], n) / total
    out["depth_width"] = np.sqrt(
        np.maximum(_sum(event, e * grid.r[cell] ** 2, n) / total - out["depth"] ** 2, 0.0)
    )
    middle = grid.layers[EMB2]
    near = (
        (grid.layer[cell] == EMB2)
        & (np.abs(d_eta) < 1.5 * middle.d_eta)
        & (np.abs(d_phi) < 1.5 * middle.d_phi)
    )
    out["core"] = _sum(event, e * near, n) / safe[:, EMB2]
    return out


def _sum(index: NDArray[np.int64], weight: FloatArray, n: int) -> FloatArray:
    """Sum of the weights of each index below n, shape (n,)."""
    return np.asarray(np.bincount(index, weight, n), dtype=np.float64)


def _hottest(showers: Showers, event: NDArray[np.int64]) -> FloatArray:
    """Signals of the two hottest cells of each shower in GeV, shape (n, 2); 0 where there are fewer
    cells.
    """
    falling = np.append(showers.signal[np.lexsort((-showers.signal, event))], 0.0)
    place = showers.offsets[:-1, None] + np.arange(2)
    return np.where(
        place < showers.offsets[1:, None], falling[np.minimum(place, len(falling) - 1)], 0.0
    )


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
    showers: Showers,
    grid: Grid,
    rng: np.random.Generator,
    *,
    copies: int,
    config: ShowerConfig | None = None,
    refine: bool = True,
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
    config : ShowerConfig, optional
        The tuned parameters by default.
    refine : bool
        See `simulate_showers`.
    """
    if copies < 1:
        raise ValueError(f"copies = {copies}: expected at least 1")
    pdg_id, e_true = np.repeat(showers.pdg_id, copies), np.repeat(showers.e_true, copies)
    eta, phi = np.repeat(showers.eta, copies), np.repeat(showers.phi, copies)
    particles = Particles(np.arange(len(e_true)), pdg_id, e_true, eta, phi)
    hits = simulate_showers(particles, grid, rng, config=config, refine=refine)
    return Showers(pdg_id, e_true, eta, phi, hits.offsets, hits.cell, hits.signal), hits


def compare_showers(
    fast: Moments, e_fast: FloatArray, geant4: Moments, e_geant4: FloatArray,
    edges: Sequence[float], *, response_limit: float = LIMITS["response"],
) -> list[Comparison]:  # fmt: skip
    """All comparisons of one species: mean response, its rms, mean number of cells; then share and
    both widths of each layer.

    Parameters
    ----------
    fast, geant4 : dict of ndarray, shape (n,)
        As of `shower_moments`.
    e_fast, e_geant4 : ndarray, shape (n,), GeV
        True energies.
    edges : sequence of float, GeV
        Bins of true energy.
    response_limit : float
        Tolerated relative difference of the mean response.
    """
    bins = np.asarray(edges, dtype=np.float64)
    limits = {**LIMITS, "response": response_limit}

    def curve(measure: _Measure, moments: Moments, energy: FloatArray) -> Curve:
        place = np.digitize(energy, bins) - 1
        found = [measure(moments, energy, place == b) for b in range(len(bins) - 1)]
        return Curve(bins, *np.array(found).T)

    def compare(quantity: str, layer: str, measure: _Measure) -> Comparison:
        curves = curve(measure, fast, e_fast), curve(measure, geant4, e_geant4)
        return Comparison(quantity, layer, *curves, limits[quantity])

    return [
        compare("response", "", lambda m, _, b: mean(m["response"][b])),
        compare("rms", "", lambda m, _, b: rms(m["response"][b])),
        compare("cells", "", lambda m, _, b: mean(m["n_cells"][b])),
        *(
            compare(*of)
            for name in LAYER_NAMES
            for of in (
                ("share", name, functools.partial(_share, layer=name)),
                ("width", f"eta {name}", functools.partial(_width, layer=name, axis="eta")),
                ("width", f"phi {name}", functools.partial(_width, layer=name, axis="phi")),
            )
        ),
    ]


def mean(values: FloatArray) -> Estimate:
    """Mean and its standard error; NaN for fewer than MIN_COUNT values."""
    if len(values) < MIN_COUNT:
        return UNKNOWN
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))


def rms(values: FloatArray) -> Estimate:
    """Standard deviation and its standard error, sqrt((m4 - m2^2) / (4 m2 n)); NaN for fewer than
    MIN_COUNT values.
    """
    if len(values) < MIN_COUNT:
        return UNKNOWN
    squared = (values - np.mean(values)) ** 2
    variance = float(np.mean(squared))
    return Estimate(
        float(np.sqrt(variance)), float(np.std(squared) / np.sqrt(4.0 * variance * len(values)))
    )


def ratio_of_sums(part: FloatArray, whole: FloatArray) -> Estimate:
    """Sum of `part` over sum of `whole`, with the linearised error of a ratio of means; NaN for
    fewer than MIN_COUNT values.

    >>> ratio_of_sums(np.full(40, 1.0), np.full(40, 4.0))
    Estimate(value=0.25, error=0.0)
    """
    if len(whole) < MIN_COUNT:
        return UNKNOWN
    value = float(np.sum(part) / np.sum(whole))
    return Estimate(
        value, float(np.std(part - value * whole) * np.sqrt(len(whole)) / np.sum(whole))
    )


def layer_energy(moments: Moments, e_true: FloatArray, layer: str) -> FloatArray:
    """EM-scale energy of each shower in a layer in GeV; 0 where the whole shower left nothing."""
    total = moments["response"] * e_true
    return np.where(total > 1e-6, moments[f"share_{layer}"] * total, 0.0)


_Measure = Callable[[Moments, FloatArray, NDArray[np.bool_]], Estimate]


def _share(moments: Moments, e_true: FloatArray, inside: NDArray[np.bool_], layer: str) -> Estimate:
    return ratio_of_sums(
        layer_energy(moments, e_true, layer)[inside], (moments["response"] * e_true)[inside]
    )


def _width(
    moments: Moments, e_true: FloatArray, inside: NDArray[np.bool_], layer: str, axis: str
) -> Estimate:
    lit = inside & (layer_energy(moments, e_true, layer) > MIN_LAYER_E)
    return mean(moments[f"width_{axis}_{layer}"][lit])


def layer_profile(
    showers: Showers, grid: Grid, thickness: FloatArray, e_range: tuple[float, float]
) -> Curve:
    """Mean over showers of the energy of a layer over the true one, a unit of depth, against the
    depth behind the presampler.

    Parameters
    ----------
    showers : Showers
    grid : Grid
    thickness : ndarray, shape (n_layers,)
        Of the presampler, which is left out, and of the layers behind it that are wanted, in
        radiation or interaction lengths.
    e_range : (float, float), GeV
        True energy of the showers; a single one has no error.
    """
    n, n_layers = len(showers.e_true), len(thickness)
    event = np.repeat(np.arange(n), np.diff(showers.offsets))
    place = event * grid.n_layers + grid.layer[showers.cell]
    of_shower = _sum(place, showers.signal / showers.e_true[event], n * grid.n_layers)
    inside = (showers.e_true >= e_range[0]) & (showers.e_true < e_range[1])
    share = of_shower.reshape(n, -1)[inside, 1:n_layers] / thickness[1:]
    spread = share.std(axis=0, ddof=1) if len(share) > 1 else np.full(n_layers - 1, np.nan)
    edges = np.cumsum(np.append(0.0, thickness[1:]))
    n_inside = max(len(share), 1)
    return Curve(edges, share.sum(axis=0) / n_inside, spread / np.sqrt(n_inside))


def worst(comparisons: Sequence[Comparison], quantity: str) -> Estimate:
    """Largest |deviation| of a quantity over layers and bins, with the statistical error of that
    one.

    Raises
    ------
    ValueError
        If no bin was compared.
    """
    chosen = [c.deviation for c in comparisons if c.quantity == quantity]
    largest = [deviation.distance(0.0).largest() for deviation in chosen]
    known = [estimate for estimate in largest if np.isfinite(estimate.value)]
    if not known:
        raise ValueError(f"{quantity}: no bin has {MIN_COUNT} showers of both samples")
    return max(known, key=lambda estimate: estimate.value)


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


def feature_table(
    moments: Moments, e_true: FloatArray, layer_sigma: Mapping[str, float]
) -> FloatArray:
    """The moments of FEATURES and, last, log10 of the true energy, as the condition; shape (n, 21).

    Parameters
    ----------
    moments : dict of ndarray, shape (n,)
        As of `shower_moments`.
    e_true : ndarray, shape (n,), GeV
    layer_sigma : mapping of str to float, GeV
        Noise of a cell of each layer: a layer below three times of it counts as empty, since no
        detector would see it (share 0, no width).
    """
    empty = {
        name: layer_energy(moments, e_true, name) < 3.0 * layer_sigma[name] for name in LAYER_NAMES
    }
    nothing = np.logical_and.reduce(list(empty.values()))
    columns = []
    for name in FEATURES:
        column = np.where(nothing & (name not in ("response", "n_cells")), np.nan, moments[name])
        kind, layer = name.split("_")[0], name.split("_")[-1]
        if kind in ("share", "width") and layer in empty:
            column = np.where(empty[layer], 0.0 if kind == "share" else np.nan, column)
        columns.append(np.where(empty["EMB2"], np.nan, column) if name == "core" else column)
    return np.column_stack([*columns, np.log10(e_true)])


def tell_apart(
    fast: FloatArray,
    geant4: FloatArray,
    *,
    copies: int,
    seed: int,
    n_folds: int = 5,
) -> Separation:
    """Train trees on all folds of the events but one and score that one, in turn.

    Parameters
    ----------
    fast : ndarray, shape (copies * n, n_features)
        Rows i * copies to (i + 1) * copies - 1 are copies of particle i and stay in its fold;
        together they weigh as one shower.
    geant4 : ndarray, shape (n, n_features)
    copies : int
    seed : int
        Of the folds, the trees and the shuffling.
    n_folds : int
        The importance of the moments is that in the first fold.

    Raises
    ------
    ValueError
        If the numbers of rows do not fit.
    """
    if len(fast) != copies * len(geant4):
        raise ValueError(f"fast has {len(fast)} rows: expected {copies} copies of {len(geant4)}")
    table = np.concatenate([fast, geant4])
    is_fast = np.arange(len(table)) < len(fast)
    weight = np.where(is_fast, 1.0 / copies, 1.0)
    event = np.concatenate([np.repeat(np.arange(len(geant4)), copies), np.arange(len(geant4))])
    fold = np.random.default_rng(seed).permutation(len(geant4))[event] % n_folds
    score, areas, loss = np.empty(len(table)), [], np.zeros(table.shape[1])
    with threadpool_limits(1, user_api="openmp"):  # trees this small are slower on several threads
        for k in range(n_folds):
            train, test = fold != k, fold == k
            trees = HistGradientBoostingClassifier(
                max_iter=100, learning_rate=0.1, max_leaf_nodes=15, random_state=seed
            )
            # trees cannot bin a moment that no shower has
            known = np.where(np.isfinite(table[train]).any(axis=0), table, 0.0)
            trees.fit(known[train], is_fast[train], sample_weight=weight[train])
            score[test] = trees.predict_proba(known[test])[:, 1]
            areas.append(auc(score[test], is_fast[test], weights=weight[test]))
            if k == 0:
                loss = permutation_importance(
                    trees,
                    known[test],
                    is_fast[test],
                    scoring="roc_auc",
                    n_repeats=3,
                    random_state=seed,
                ).importances_mean
    values, errors = np.array(areas).T
    area = Estimate(float(values.mean()), float(np.sqrt(np.sum(errors**2)) / n_folds))
    mean_loss = zip((*FEATURES, "log10 E"), loss.tolist(), strict=False)
    return Separation(area, score, is_fast, dict(sorted(mean_loss, key=lambda item: -item[1])))
