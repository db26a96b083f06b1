"""Clusters gathered by event: how many a pion leaves, what share of its energy they hold, and how
many come from noise alone.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from pfcalib.clustering.topo import Clusters, TopoConfig, find_clusters
from pfcalib.geometry import Grid
from pfcalib.metrics.curve import Estimate
from pfcalib.samples.schema import Sample, is_em
from pfcalib.simulation.digitise import digitise
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.showers import simulate_showers


class Events(NamedTuple):
    """Events with at least one cluster; arrays of shape (n,), sums over the clusters in the
    file.
    """

    is_em: NDArray[np.bool_]
    e_true: NDArray[np.float64]  # GeV
    n_clusters: NDArray[np.int64]  # all of them, also those too soft for the file
    e_clusters: NDArray[np.float64]  # GeV at the EM scale
    e_leading: NDArray[np.float64]  # GeV, of the most energetic cluster
    e_layers: NDArray[np.float64]  # (n, n_layers) GeV at the EM scale
    deposited: NDArray[np.float64]  # GeV of truth in the clusters
    outside: NDArray[np.float64]  # GeV of truth in cells of no cluster
    dead: NDArray[np.float64]  # GeV of truth in dead material


class ClusteredEvent(NamedTuple):
    """One event of one particle after digitisation and clustering."""

    energy: NDArray[np.float64]  # (n_cells,) GeV at the EM scale, with noise
    # (n_cells,) cluster with the larger share of the cell, 0 the most energetic one, -1 none
    owner: NDArray[np.int64]
    clusters: Clusters


class Sharing(NamedTuple):
    """How clusters share cells."""

    n_shared: int  # cells in more than one cluster
    difference: float  # largest |sum of the weights of a cell - 1|


def gather_events(sample: Sample, layers: tuple[str, ...]) -> Events:
    """Sum the clusters of each event.

    Parameters
    ----------
    sample : Sample
        Whole events.
    layers : tuple of str
        Names of the columns of `Events.e_layers`.
    """
    number, first, event = np.unique(sample["eventNumber"], return_index=True, return_inverse=True)
    n = len(number)

    def total(name: str) -> NDArray[np.float64]:
        return np.asarray(np.bincount(event, sample[name].astype(np.float64), n), dtype=np.float64)

    leading = np.full(n, -np.inf)
    np.maximum.at(leading, event, sample["clusterE"].astype(np.float64))
    return Events(
        is_em(sample["truthPdgId"])[first],
        sample["truthE"][first].astype(np.float64),
        sample["nCluster"][first].astype(np.int64),
        total("clusterE"),
        leading,
        np.column_stack([total(f"cluster_E_{name}") for name in layers]),
        *(total(f"cluster_ENG_CALIB_{part}") for part in ("TOT", "OUT_T", "DEAD_TOT")),
    )


def mean_in_bins(
    values: ArrayLike, x: ArrayLike, edges: ArrayLike, *, min_count: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the values in bins [low, high) of x and its standard error; NaN in bins with fewer
    than min_count values.

    >>> mean_in_bins([1.0, 3.0, 9.0], [0.1, 0.2, 1.5], [0.0, 1.0, 2.0], min_count=2)
    (array([ 2., nan]), array([ 1., nan]))
    """
    bins, numbers = np.asarray(edges, dtype=np.float64), np.asarray(values, dtype=np.float64)
    place = np.digitize(np.asarray(x, dtype=np.float64), bins) - 1
    inside = (place >= 0) & (place < len(bins) - 1)
    count, total, squares = (
        np.bincount(place[inside], w, len(bins) - 1)
        for w in (None, numbers[inside], numbers[inside] ** 2)
    )
    enough = count >= max(min_count, 2)
    n = np.where(enough, count, np.nan)
    average = total / n
    return average, np.sqrt(np.maximum(squares / n - average**2, 0.0) / (n - 1.0))


def species_means(
    values: NDArray[np.float64], events: Events, edges: ArrayLike
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Means and errors in bins of true energy for neutral ("pi0") and charged ("pic") pions.

    Parameters
    ----------
    values : ndarray, shape (n,) or (n, n_columns)
        Quantities of the events; NaN is left out.
    events : Events
    edges : array_like, shape (n_bins + 1,), GeV

    Returns
    -------
    dict of (ndarray, ndarray)
        Each of shape (n_bins,) or (n_bins, n_columns).
    """
    out = {}
    for name, chosen in (("pi0", events.is_em), ("pic", ~events.is_em)):
        columns = []
        for column in np.atleast_2d(values.T):
            known = chosen & np.isfinite(column)
            columns.append(np.stack(mean_in_bins(column[known], events.e_true[known], edges)))
        average, error = np.stack(columns, axis=-1) if values.ndim > 1 else columns[0]
        out[name] = (average, error)
    return out


def worst_ratio(
    values: tuple[NDArray[np.float64], NDArray[np.float64]],
    reference: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Estimate:
    """Largest |value / reference - 1| over the bins and the statistical error of that one; each
    argument is (values, errors).

    >>> round(worst_ratio((np.array([1.1, 0.7]), np.zeros(2)), (np.ones(2), np.full(2, 0.1))).value, 6)
    0.3
    """
    ratio = values[0] / reference[0]
    error = ratio * np.hypot(values[1] / values[0], reference[1] / reference[0])
    place = int(np.nanargmax(np.abs(ratio - 1.0)))
    return Estimate(float(np.abs(ratio[place] - 1.0)), float(error[place]))


def median_error(values: ArrayLike) -> Estimate:
    """Median and its standard error for a sample of any shape: half the distance of the quantiles
    0.5 -+ 0.5 / sqrt(n).

    >>> median_error(np.arange(101.0)).value
    50.0
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        raise ValueError("no values: a median needs at least one")
    low, high = np.quantile(ordered, np.clip(0.5 + np.array([-0.5, 0.5]) / np.sqrt(n), 0.0, 1.0))
    return Estimate(float(np.median(ordered)), float(0.5 * (high - low)))


def clusters_per_cell(sample: Sample) -> int:
    """Largest number of clusters of one event that hold the same cell."""
    event = np.repeat(sample["eventNumber"], np.diff(sample.offsets)).astype(np.uint64)
    key = event * np.uint64(len(sample.geo)) + sample.cells["cluster_cell_ID"].astype(np.uint64)
    return int(np.unique(key, return_counts=True)[1].max(initial=0))


def check_sharing(
    name: str,
    energy: float,
    grid: Grid,
    sigma: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    n_events: int,
) -> Sharing:
    """Cluster particles like those of `simulate_event` and add up the weights of each cell."""
    n_shared, difference = 0, 0.0
    for _ in range(n_events):
        clusters = simulate_event(name, energy, grid, sigma, rng).clusters
        _, place, n_entries = np.unique(clusters.cell, return_inverse=True, return_counts=True)
        n_shared += int(np.count_nonzero(n_entries > 1))
        difference = max(
            difference, float(np.abs(np.bincount(place, clusters.weight) - 1.0).max(initial=0.0))
        )
    return Sharing(n_shared, difference)


def simulate_event(
    name: str, energy: float, grid: Grid, sigma: NDArray[np.float64], rng: np.random.Generator
) -> ClusteredEvent:
    """One particle at eta = phi = 0.03, without field, digitised and clustered.

    Parameters
    ----------
    name : str
        One of `simulation.particles.GUNS`.
    energy : float, GeV
    grid : Grid
    sigma : ndarray, shape (n_cells,), GeV
        Noise of each cell.
    rng : numpy.random.Generator
    """
    particles = simulate_gun(
        name, 1, rng, energy=(energy, energy), eta=(0.03, 0.03), phi=(0.03, 0.03)
    )
    cells = digitise(simulate_showers(particles, grid, rng), grid, sigma, rng)
    clusters = find_clusters(cells, sigma, grid)
    owner = np.full(grid.n_cells, -1)
    order = np.argsort(clusters.weight, kind="stable")
    number = np.repeat(np.arange(len(clusters.event)), np.diff(clusters.offsets))
    owner[clusters.cell[order]] = number[order]
    return ClusteredEvent(cells[0], owner, clusters)


def count_noise_clusters(
    grid: Grid,
    sigma: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    n_events: int,
    chunk: int = 100,
) -> NDArray[np.int64]:
    """Number of clusters in each of n_events events of noise alone, shape (n_events,)."""
    counts = []
    for start in range(0, n_events, chunk):
        n = min(chunk, n_events - start)
        clusters = find_clusters(
            rng.standard_normal((n, grid.n_cells), dtype=np.float32) * sigma, sigma, grid
        )
        counts.append(np.bincount(clusters.event, minlength=n))
    return np.concatenate(counts)


def expected_noise_clusters(grid: Grid, config: TopoConfig | None = None) -> float:
    """Mean number of seeds in an event of Gaussian noise less the pairs of them that merge, to
    first order.

    A cell is a seed with the chance p = 2 Phi(-seed). Two seeds merge if they are neighbours, or
    have a neighbour in common that is above the growth threshold, of chance q = 2 Phi(-growth): N p
    - p^2 (pairs of neighbours + q x pairs with one cell between them).
    """
    cuts = config or TopoConfig()
    p, q = 2.0 * norm.sf(cuts.seed), 2.0 * norm.sf(cuts.growth)
    degree = np.diff(grid.neighbours[0]).astype(np.float64)
    return float(
        grid.n_cells * p - p**2 * (degree.sum() / 2.0 + q * np.sum(degree * (degree - 1.0)) / 2.0)
    )


def time_clustering(
    energy: NDArray[np.float64], sigma: NDArray[np.float64], grid: Grid, *, repeats: int = 5
) -> Estimate:
    """Milliseconds an event to cluster a batch, shape (n_events, n_cells); processor time, after a
    first call that compiles.
    """
    find_clusters(energy[:1], sigma, grid)
    seconds = np.empty(repeats)
    for i in range(repeats):
        start = time.process_time()
        find_clusters(energy, sigma, grid)
        seconds[i] = time.process_time() - start
    per_event = 1e3 * seconds / len(energy)
    return Estimate(float(per_event.mean()), float(per_event.std(ddof=1) / np.sqrt(repeats)))
