"""What charged pions are expected to leave in the calorimeter: mean and width of E/p and the order
of rings of cells, from single pions (arXiv:1703.10485, sections 6.2 and 6.3).

    table = derive_eoverp("pions.root", EoverPConfig())
    table.save("eoverp.json")                          # correctionlib
    mean, sigma = expected_deposit(EoverPTable.load().arrays, 5.0, 0.3, layer)  # GeV
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from correctionlib import schemav2
from iminuit import Minuit
from iminuit.cost import ExtendedBinnedNLL
from numba import njit
from numpy.typing import NDArray
from particle import Particle
from scipy.special import ndtr
from scipy.stats import chi2

from pfcalib.cache import write_text
from pfcalib.calibration.lcw_tables import cell_rows
from pfcalib.calibration.rings import (
    N_LAYERS,
    N_RINGS,
    RING_WIDTHS,
    RingCells,
    densest_layer,
    distance_to,
    phi_between,
    ring_cells,
    ring_of,
)
from pfcalib.calibration.weighting import find_bin
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError, PfcalibError, ValidationError
from pfcalib.geometry import BARREL
from pfcalib.samples.read import STEP, PathLike, as_paths, iterate_sample, read_sample
from pfcalib.samples.schema import Sample, concatenate
from pfcalib.samples.split import split_index, split_of
from pfcalib.simulation.particles import Particles, propagate
from pfcalib.simulation.produce import FIELD, MIN_CLUSTER_E
from pfcalib.simulation.refine import point

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PION = 211
PION_MASS = float(Particle.from_pdgid(PION).mass or 0.0) * 1e-3  # GeV
EMB2 = LAYER_NAMES.index("EMB2")  # where tracks and clusters are compared
NO_CLUSTER = -1  # layer of pions without a cluster near by
VERSION = 1  # of the tables in a file
# where mean and width of a bin come from: a fit of the core, mean and root mean square of its
# pions, or those of all layers of its p and |eta|
FITTED, MOMENTS, ALL_LAYERS = 0, 1, 2
CONTENTS = ("core", "moments")
QUANTITIES = {
    "mean": "mean of E/p",
    "sigma": "width of E/p",
    "mean_error": "statistical error of the mean",
    "sigma_error": "statistical error of the width",
    "chi2": "likelihood ratio of the fit, distributed as chi2; 0 without a fit",
    "ndf": "degrees of freedom of the fit; 0 without",
    "entries": "pions",
    "source": "0: Gaussian fit of the core; 1: mean and root mean square of the pions; 2: the same "
    "of all layers of this p and |eta|, for want of pions",
}
_DENSITY = "mean energy density around the track, GeV per cube of a radiation length"
_TRUTH = ("eventNumber", "truthPdgId", "truthE", "truthEta", "truthPhi")
_CLUSTER = ("clusterE", "clusterEta", "clusterPhi")
_READ = ("sampleNumber", *_TRUTH, *_CLUSTER, "cluster_cell_ID", "cluster_cell_E")
_PROVENANCE = "provenance: "  # what follows it in the description of a file is JSON
_DESCRIPTION = (
    "Expected deposits of charged pions as in arXiv:1703.10485: mean and width of E/p in bins of "
    "the momentum, |eta| at the origin and layer of highest energy density; cells are subtracted "
    "in rings of falling density."
)
_INNERMOST = re.compile(r"\[[^\[\]{}]+\]")  # lists of numbers, which are written in one line
_PER_BIN, _BINS = 12, (8, 30)  # of a fit: wanted entries a bin, and least and most bins
_ROUNDS, _STABLE = 40, 0.3  # most rounds of a fit; it ends when one moves by less of an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class EoverPConfig:
    """Bins and fits of E/p.

    Parameters
    ----------
    energy_edges : tuple of float, GeV
        Edges of the momentum. Inside of the published ones, 1, 3.5, 10, 25, 32.5 and 40, the mean
        rises by a fifth.
    eta_edges : tuple of float
        Edges of |eta| at the origin.
    cone : float
        Clusters within this dR of the track at EMB2 count.
    threshold : float, GeV
        Least energy of a cluster in the sample; the window of a fit must not reach down to it.
    window : (float, float)
        A fit takes what lies within so many widths below and above the mean; of windows without the
        low tail this one closes best.
    content : str
        What a bin holds: mean and width of the fit to the core ("core"), or mean and root mean
        square of all its pions ("moments").
    min_fit, min_moments : int
        Fewest pions for a fit, and for a mean and a root mean square.
    min_p_value : float
        A fit that describes the core less well does not count.

    Raises
    ------
    ConfigError
        If edges do not rise, a number is not positive or the content is unknown.
    """

    energy_edges: tuple[float, ...] = (
        *(0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.25, 5.0),
        *(6.0, 7.0, 8.5, 10.0, 14.0, 19.0, 25.0, 32.5, 40.0, 60.0),
    )
    eta_edges: tuple[float, ...] = (0.0, 0.5, 0.8)
    cone: float = 0.4
    threshold: float = MIN_CLUSTER_E
    window: tuple[float, float] = (1.5, 2.0)
    content: str = "core"
    min_fit: int = 60
    min_moments: int = 10
    min_p_value: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("energy_edges", "eta_edges"):
            edges = getattr(self, name)
            if len(edges) < 2 or edges[0] < 0.0 or not np.all(np.diff(edges) > 0.0):
                raise ConfigError(f"E/p: {name} must rise from 0 or more, not {edges}")
        if not self.energy_edges[0] > 0.0:
            raise ConfigError("E/p: the first of energy_edges must be above 0 GeV")
        if not min(self.cone, *self.window, self.min_fit, self.min_moments) > 0.0:
            raise ConfigError("E/p: cone, window, min_fit and min_moments must be positive")
        if not min(self.threshold, self.min_p_value) >= 0.0:
            raise ConfigError("E/p: threshold and min_p_value must not be negative")
        if self.content not in CONTENTS:
            raise ConfigError(
                f"E/p: content must be one of {', '.join(CONTENTS)}, not {self.content!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Momentum, |eta|, layer."""
        return len(self.energy_edges) - 1, len(self.eta_edges) - 1, N_LAYERS


class Pions(NamedTuple):
    """Single pions and the clusters near them; arrays of shape (n,)."""

    p: FloatArray  # GeV
    eta: FloatArray  # at the origin
    energy: FloatArray  # GeV of clusters at the EM scale; 0 without
    layer: IntArray  # of highest energy density; NO_CLUSTER without
    # (n_e, n_eta, N_LAYERS, N_LAYERS, N_RINGS) sum of densities around the pions of each bin
    density: FloatArray


class CoreFit(NamedTuple):
    """A Gaussian fitted to the core of a distribution."""

    mean: float
    sigma: float
    mean_error: float
    sigma_error: float
    chi2: float
    ndf: int

    @property
    def p_value(self) -> float:
        """Probability of a larger chi2."""
        return float(chi2.sf(self.chi2, self.ndf))


class EoverPArrays(NamedTuple):
    """The table as kernels read it."""

    energy_edges: FloatArray  # (n_e + 1,) GeV of momentum
    eta_edges: FloatArray  # (n_eta + 1,) of |eta|
    mean: FloatArray  # (n_e, n_eta, N_LAYERS) of E/p
    sigma: FloatArray  # the same
    # (n_e, n_eta, N_LAYERS, N_LAYERS * N_RINGS) codes layer * N_RINGS + ring by falling density
    order: IntArray


@njit(cache=True, nogil=True, error_model="numpy")
def expected_deposit(
    table: EoverPArrays, p: float, abs_eta: float, layer: int
) -> tuple[float, float]:
    """Mean and width in GeV of what a pion of momentum p (GeV) leaves; beyond the edges the first
    or last bin counts.
    """
    e, eta = find_bin(table.energy_edges, p), find_bin(table.eta_edges, abs_eta)
    return p * table.mean[e, eta, layer], p * table.sigma[e, eta, layer]


@dataclasses.dataclass(frozen=True, eq=False)
class EoverPTable:
    """Mean and width of E/p with errors and quality of the fits, arrays of shape (n_e, n_eta,
    N_LAYERS) as told in QUANTITIES, and the density of energy around the pions.
    """

    config: EoverPConfig
    mean: FloatArray
    sigma: FloatArray
    mean_error: FloatArray
    sigma_error: FloatArray
    chi2: FloatArray
    ndf: IntArray
    entries: IntArray
    source: IntArray  # FITTED, MOMENTS or ALL_LAYERS
    density: FloatArray  # (n_e, n_eta, N_LAYERS, N_LAYERS, N_RINGS) GeV / X0^3
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        rings = (*self.config.shape, N_LAYERS, N_RINGS)
        shapes = {**dict.fromkeys(QUANTITIES, self.config.shape), "density": rings}
        for name, shape in shapes.items():
            found = np.asarray(getattr(self, name))
            if found.shape != shape or not np.isfinite(found).all():
                raise ValidationError(
                    f"E/p: {name} has shape {found.shape}, expected {shape} of finite numbers"
                )
        if not np.all(self.sigma > 0.0):
            raise ValidationError("E/p: sigma must be positive")

    @property
    def p_value(self) -> FloatArray:
        """Probability of a chi2 as large as that of each fit; 1 without a fit."""
        fitted = self.source == FITTED
        return np.where(fitted, chi2.sf(self.chi2, np.maximum(self.ndf, 1)), 1.0)

    @cached_property
    def arrays(self) -> EoverPArrays:
        """The table for kernels; empty rings come last, by ring and layer."""
        flat = self.density.reshape(*self.config.shape, -1)
        code = np.broadcast_to(np.arange(flat.shape[-1]), flat.shape)
        keys = (code // N_RINGS, code % N_RINGS, np.where(flat == 0.0, np.inf, -flat))
        return EoverPArrays(
            np.array(self.config.energy_edges, dtype=np.float64),
            np.array(self.config.eta_edges, dtype=np.float64),
            self.mean,
            self.sigma,
            np.lexsort(keys, axis=-1).astype(np.int64),
        )

    def save(self, path: str | Path) -> None:
        """Write one file of correctionlib, JSON of its schema version 2: a correction for each of
        QUANTITIES with inputs lhed (name of the layer), p and abs_eta, and one for the density.
        """
        provenance = {**self.provenance, "config": dataclasses.asdict(self.config)}
        book = schemav2.CorrectionSet(
            schema_version=2,
            description=f"{_DESCRIPTION}\n{_PROVENANCE}{json.dumps(provenance, sort_keys=True)}",
            corrections=self.corrections(),
        )
        text = book.model_dump_json(indent=1, exclude_unset=True)
        write_text(path, _INNERMOST.sub(lambda found: " ".join(found[0].split()), text) + "\n")

    def corrections(self) -> list[schemav2.Correction]:
        """The tables one by one, as they are written."""
        edges = {"p": self.config.energy_edges, "abs_eta": self.config.eta_edges}
        made = [
            _correction(
                name,
                text,
                {"lhed": "layer of highest energy density"},
                edges,
                np.moveaxis(getattr(self, name), 2, 0),
            )
            for name, text in QUANTITIES.items()
        ]
        layers = {"lhed": "layer of highest energy density", "layer": "layer of the cells"}
        rings = {**edges, "ring": tuple(float(k) for k in range(N_RINGS + 1))}
        density = np.moveaxis(self.density, (2, 3), (0, 1))
        return [*made, _correction("density", _DENSITY, layers, rings, density)]

    @classmethod
    def load(cls, path: str | Path | None = None) -> EoverPTable:
        """Table of a file of `save`, by default the packaged one.

        Raises
        ------
        BadFileError
            If the file is missing, broken, of another version or incomplete; it is named.
        """
        path = Path(path or Path(str(resources.files("pfcalib"))) / "data" / "eoverp.json")
        try:
            book = schemav2.CorrectionSet.model_validate_json(path.read_text("utf-8"))
            stored = {correction.name: correction for correction in book.corrections}
            provenance = json.loads((book.description or "").partition(_PROVENANCE)[2])
            config = _CONFIG.validate_python(provenance.pop("config"))
            found: dict[str, Any] = {}
            for name in (*QUANTITIES, "density"):
                layers = (2, 3) if name == "density" else (2,)
                moved = np.moveaxis(_content(stored[name].data), range(len(layers)), layers)
                whole = name in ("ndf", "entries", "source")
                found[name] = np.ascontiguousarray(moved, np.int64 if whole else np.float64)
            table = cls(config, **found, provenance=provenance)
        except (OSError, AttributeError, KeyError, ValueError, TypeError, PfcalibError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadFileError(f"{path}: not a table of E/p: {what}") from error
        for expected in table.corrections():
            if stored[expected.name] != expected:
                raise BadFileError(
                    f"{path}: {expected.name} has other edges than the configuration in the "
                    f"description, does not clamp, or is not of version {VERSION}: derive the "
                    "table anew"
                )
        return table


def derive_eoverp(
    path: PathLike | Sequence[PathLike],
    config: EoverPConfig | None = None,
    *,
    split: str = "all",
    progress: Callable[[int], None] | None = None,
) -> EoverPTable:
    """Table of E/p from the clusters of single charged pions without pile-up.

    Parameters
    ----------
    path : path-like or sequence of them
    config : EoverPConfig, optional
    split : "train", "validation", "test" or "all"
        Which events are used.
    progress : callable, optional
        Is told how many more clusters were read.

    Raises
    ------
    BadFileError
        If a file cannot be read or lacks a column.
    ConfigError
        If there is no such split.
    ValidationError
        If a bin of momentum and |eta| has too few pions.
    """
    config = config or EoverPConfig()
    pions = measure_pions(path, config, split=split, progress=progress)
    made = {
        Path(str(file)).name: read_sample(file, columns=["eventNumber"], entry_stop=0).metadata
        for file in as_paths(path)
    }
    configs = {name: metadata.get("config") for name, metadata in made.items()}
    return fit_eoverp(pions, config, provenance={"samples": configs, "split": split})


def measure_pions(
    path: PathLike | Sequence[PathLike],
    config: EoverPConfig,
    *,
    split: str = "all",
    progress: Callable[[int], None] | None = None,
    step: int = STEP,
) -> Pions:
    """Energy of the clusters around each charged pion, its layer of highest energy density, and the
    densities in rings; parameters and errors as in `derive_eoverp`, with `step` entries in memory
    at once.

    The track is the true pion, carried through the field to each layer. Pions that leave nothing at
    all are not in a sample and not among these. Clusters of an event must follow one another.
    """
    number = None if split == "all" else split_index(split)
    density = np.zeros((*config.shape, N_LAYERS, N_RINGS))
    parts = [(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))]
    for sample in _whole_events(path, step, progress):
        first = _first_clusters(sample)
        event, pdg_id, *truth = (sample[name][first[:-1]] for name in _TRUTH)
        shot = Particles(event, pdg_id, *(column.astype(np.float64) for column in truth))
        used = (np.abs(shot.pdg_id) == PION) & propagate(shot, field=FIELD).reaches
        if number is not None:
            used &= split_of(event) == number
        p = np.sqrt(np.maximum(shot.energy**2 - PION_MASS**2, 0.0))
        track_eta, track_phi = point(shot, BARREL, field=FIELD)
        cluster = np.column_stack([sample[name].astype(np.float64) for name in _CLUSTER])
        energy, layer = measure_showers(
            ring_cells(sample.geo),
            first,
            cluster,
            sample.offsets,
            cell_rows(sample),
            sample.cells["cluster_cell_E"].astype(np.float64),
            np.stack([track_eta, track_phi]),
            _bins(p, shot.eta, config),
            used,
            config.cone,
            density,
        )
        parts.append((p[used], shot.eta[used], energy[used], layer[used]))
    p, eta, energy, layer = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pions(p, eta, energy, layer, density)


def _whole_events(
    path: PathLike | Sequence[PathLike], step: int, progress: Callable[[int], None] | None
) -> Iterator[Sample]:
    """Chunks of a sample that end with an event."""
    rest: Sample | None = None
    for sample in iterate_sample(path, step=step, columns=_READ):
        if progress is not None:
            progress(len(sample))
        whole = sample if rest is None else concatenate([rest, sample])
        last = _first_clusters(whole)[-2] if len(whole) else 0
        rest = whole[last:]
        yield whole[:last]
    if rest is not None:
        yield rest


def _first_clusters(sample: Sample) -> IntArray:
    """First cluster of each event and, last, the number of clusters."""
    if not len(sample):
        return np.zeros(1, dtype=np.int64)
    event = np.stack([sample["sampleNumber"], sample["eventNumber"]])
    starts = np.flatnonzero(np.any(np.diff(event, axis=1) != 0, axis=0)) + 1
    return np.concatenate([[0], starts, [len(sample)]]).astype(np.int64)


def _bins(p: FloatArray, eta: FloatArray, config: EoverPConfig) -> IntArray:
    """Bins of momentum and |eta|, -1 outside; shape (2, n)."""
    found = np.stack(
        [
            np.digitize(p, config.energy_edges) - 1,
            np.digitize(np.abs(eta), config.eta_edges) - 1,
        ]
    )
    inside = np.all((found >= 0) & (found < np.array(config.shape[:2])[:, None]), axis=0)
    return np.where(inside, found, -1)


@njit(cache=True, nogil=True, error_model="numpy")
def measure_showers(
    cells: RingCells,
    first: IntArray,
    cluster: FloatArray,
    offsets: IntArray,
    row: IntArray,
    cell_energy: FloatArray,
    track: FloatArray,
    bins: IntArray,
    used: NDArray[np.bool_],
    cone: float,
    density: FloatArray,
) -> tuple[FloatArray, IntArray]:
    """Energy of the clusters in a cone around each pion in GeV, and its layer of highest energy
    density; shape (n,).

    A cell adds to the density of its ring its energy over the volume of the ring, in cubes of a
    radiation length: the mean over impact points of energy over the volume of the cells in it.

    Parameters
    ----------
    cells : RingCells
    first : ndarray, shape (n + 1,)
        Clusters of pion i at first[i]:first[i + 1].
    cluster : ndarray, shape (n_clusters, 3)
        Energy in GeV, eta and phi.
    offsets, row, cell_energy
        Cells of each cluster: rows of the geometry and GeV.
    track : ndarray, shape (2, n, n_layers)
        Eta and phi at each layer.
    bins : ndarray, shape (2, n)
        Of momentum and |eta|; -1 outside.
    used : ndarray of bool, shape (n,)
    cone : float
    density : ndarray, shape (n_e, n_eta, N_LAYERS, N_LAYERS, N_RINGS)
        Is added to.
    """
    n = len(first) - 1
    energy, layers = np.zeros(n), np.full(n, NO_CLUSTER)
    for i in range(n):
        if not used[i]:
            continue
        eta_at, phi_at = track[0, i], track[1, i]
        size, chosen = 0, np.empty(offsets[first[i + 1]] - offsets[first[i]], np.int64)
        for c in range(first[i], first[i + 1]):
            d_phi = phi_between(cluster[c, 2], phi_at[EMB2])
            if math.hypot(cluster[c, 1] - eta_at[EMB2], d_phi) < cone:
                energy[i] += cluster[c, 0]
                for k in range(offsets[c], offsets[c + 1]):
                    chosen[size] = k
                    size += 1
        if size == 0:
            continue
        chosen = chosen[:size]
        layers[i] = densest_layer(cells, row[chosen], cell_energy[chosen], eta_at, phi_at)
        if bins[0, i] < 0:
            continue
        of_bin = density[bins[0, i], bins[1, i], layers[i]]
        for k in chosen:
            cell = row[k]
            distance = distance_to(cells, cell, eta_at, phi_at)
            if distance < np.inf:
                layer = cells.layer[cell]
                ring = ring_of(layer, distance)
                area = math.pi * RING_WIDTHS[layer] ** 2 * (2 * ring + 1)
                share = cells.d_eta[cell] * cells.d_phi[cell] / area
                of_bin[layer, ring] += cell_energy[k] * share / cells.volume[cell]
    return energy, layers


def fit_core(
    values: FloatArray,
    *,
    window: tuple[float, float] = (1.5, 2.0),
    min_entries: int = 60,
    lowest: float = 0.0,
) -> CoreFit | None:
    """Gaussian fit of the core: a binned likelihood of what lies within so many widths below and
    above the mean, again until mean and width are stable.

    Parameters
    ----------
    values : ndarray, shape (n,)
    window : (float, float)
    min_entries : int
        Fewest in the window.
    lowest : float
        Below it nothing is seen.

    Returns
    -------
    CoreFit or None
        None where there are too few entries, where the window reaches down to the lowest value that
        is seen, or where the fit does not converge.
    """
    if len(values) < min_entries:
        return None
    low, centre, high = np.quantile(values, [0.16, 0.5, 0.84])
    width = 0.5 * (high - low)
    for k in range(_ROUNDS):
        limits = centre - window[0] * width, centre + window[1] * width
        inside = values[(values >= limits[0]) & (values < limits[1])]
        if limits[0] <= lowest or len(inside) < min_entries:
            return None
        n_bins = int(np.clip(len(inside) / _PER_BIN, *_BINS))
        counts, edges = np.histogram(inside, bins=n_bins, range=limits)
        cost = ExtendedBinnedNLL(counts, edges, _below)
        fit = Minuit(cost, total=float(len(inside)), mean=centre, sigma=width)
        fit.limits["total"], fit.limits["sigma"] = (0.0, None), (0.1 * width, 10.0 * width)
        fit.migrad()
        (_, mean, sigma), (_, mean_error, sigma_error) = fit.values, fit.errors
        if not fit.valid:
            return None
        if max(abs(mean - centre) / mean_error, abs(sigma - width) / sigma_error) < _STABLE:
            return CoreFit(mean, sigma, mean_error, sigma_error, float(fit.fval), n_bins - 3)
        step = 2.0 / (k + 4.0)  # ever shorter, so that it does not swing
        centre, width = centre + step * (mean - centre), width + step * (sigma - width)
    return None


def _below(edges: FloatArray, total: float, mean: float, sigma: float) -> FloatArray:
    """Entries of a Gaussian below each edge."""
    return np.asarray(total * ndtr((edges - mean) / sigma))


def fit_eoverp(
    pions: Pions, config: EoverPConfig, *, provenance: dict[str, Any] | None = None
) -> EoverPTable:
    """Table of E/p of pions that have a cluster near by.

    Parameters
    ----------
    pions : Pions
        As `measure_pions` makes them with the same configuration.
    config : EoverPConfig
    provenance : dict, optional
        Is kept in the table.

    Raises
    ------
    ValidationError
        If a bin of momentum and |eta| has fewer than `min_moments` such pions.
    """
    bins, ratio = _bins(pions.p, pions.eta, config), pions.energy / pions.p
    found: dict[str, Any] = {name: np.zeros(config.shape) for name in QUANTITIES}
    density = np.zeros((*config.shape, N_LAYERS, N_RINGS))
    for e, eta in np.ndindex(config.shape[:2]):
        here = (bins[0] == e) & (bins[1] == eta) & (pions.layer != NO_CLUSTER)
        if here.sum() < config.min_moments:
            (low, high), (near, far) = config.energy_edges[e : e + 2], config.eta_edges[eta:][:2]
            raise ValidationError(
                f"E/p: {here.sum()} pions with a cluster at p of {low:g} to {high:g} GeV and |eta| "
                f"of {near:g} to {far:g}, expected at least {config.min_moments}"
            )
        for layer in range(N_LAYERS):
            values = ratio[here & (pions.layer == layer)]
            place, few = (e, eta, layer), len(values) < config.min_moments
            core = None
            if config.content == "core":
                core = fit_core(
                    values,
                    window=config.window,
                    min_entries=config.min_fit,
                    lowest=config.threshold / config.energy_edges[e],
                )
            if core and core.p_value < config.min_p_value:
                core = None
            all_density = pions.density[e, eta].sum(axis=0) / here.sum()
            density[place] = all_density if few else pions.density[place] / len(values)
            source = FITTED if core else ALL_LAYERS if few else MOMENTS
            row = core or _moments(ratio[here] if few else values)
            for name, value in (
                *row._asdict().items(),
                ("entries", len(values)),
                ("source", source),
            ):
                found[name][place] = value
    for name in ("ndf", "entries", "source"):
        found[name] = found[name].astype(np.int64)
    found = {name: _rounded(values, 6) for name, values in found.items()}
    return EoverPTable(
        config,
        **found,
        density=_rounded(density, 4),
        provenance={**(provenance or {}), "n_pions": len(pions.p)},
    )


def _moments(values: FloatArray) -> CoreFit:
    """Mean and root mean square in place of a fit."""
    mean, sigma, n = float(np.mean(values)), float(np.std(values)), len(values)
    return CoreFit(mean, sigma, sigma / math.sqrt(n), sigma / math.sqrt(2 * n), 0.0, 0)


def _rounded(values: NDArray[Any], digits: int) -> NDArray[Any]:
    """Values to so many digits, so that a file of them is short."""
    return np.array([float(f"{x:.{digits}g}") for x in values.flat], values.dtype).reshape(
        values.shape
    )


def _correction(
    name: str,
    text: str,
    layers: dict[str, str],
    edges: dict[str, tuple[float, ...]],
    content: NDArray[Any],
) -> schemav2.Correction:
    """A table whose first axes are layers, by name and meaning, and the others bins."""
    meanings = {"p": "momentum in GeV", "abs_eta": "|eta| at the origin", "ring": "from the track"}
    inputs = [schemav2.Variable(name=n, type="string", description=t) for n, t in layers.items()]
    inputs += [schemav2.Variable(name=n, type="real", description=meanings[n]) for n in edges]

    def nested(content: NDArray[Any], names: list[str]) -> schemav2.Content:
        if not names:
            return schemav2.MultiBinning(
                nodetype="multibinning",
                inputs=list(edges),
                edges=[list(of) for of in edges.values()],
                content=[*content.ravel().astype(np.float64).tolist()],
                flow="clamp",
            )
        return schemav2.Category(
            nodetype="category",
            input=names[0],
            content=[
                schemav2.CategoryItem(key=key, value=nested(part, names[1:]))
                for key, part in zip(LAYER_NAMES, content, strict=True)
            ],
        )

    return schemav2.Correction(
        name=name,
        description=text,
        version=VERSION,
        inputs=inputs,
        output=schemav2.Variable(name="value", type="real", description=text),
        data=nested(content, list(layers)),
    )


def _content(data: Any) -> FloatArray:
    """Values of a table in the shape of its axes."""
    if data.nodetype == "category":
        return np.stack([_content(item.value) for item in data.content])
    return np.reshape(data.content, [len(edges) - 1 for edges in data.edges]).astype(np.float64)


_CONFIG = pydantic.TypeAdapter(EoverPConfig)
