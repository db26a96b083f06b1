"""What ways of particle flow make of the same events: energy of the neutral particles in each
cluster, sums of momenta, time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import awkward as ak
import keras
import numpy as np
from scipy.spatial import cKDTree

from pfcalib.calibration.lcw import LcwTables
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.contract import read_contract
from pfcalib.features.clouds import N_LAYERS
from pfcalib.features.windows import ETA, PHI, TARGETS, cut_windows, write_windows
from pfcalib.models.families import load_model
from pfcalib.particleflow.elements import element_targets, event_elements
from pfcalib.particleflow.event import Event, FloatArray, FlowClusters, IntArray, Tracks
from pfcalib.particleflow.flow import (
    Inputs,
    cluster_inputs,
    flow_inputs,
    run_flow,
    truth_inputs,
)
from pfcalib.particleflow.jetfiles import ETA_MAX
from pfcalib.particleflow.jets import find_jets, match_jets, pile_up_density, subtract_pile_up
from pfcalib.particleflow.methods import Method
from pfcalib.particleflow.one_network import Flow, jet_rows, particle_inputs, particles_of
from pfcalib.samples.read import read_sample
from pfcalib.training.elementfit import ElementFit

# of an event: calibrated neutral energy in each cluster, GeV, and what jets are made of
Way = Callable[[Event], tuple[FloatArray, Inputs]]


class Looked(NamedTuple):
    """Clusters of events, arrays of shape (n_clusters,), and events, (n_events,)."""

    event: IntArray  # place of the event of each cluster
    label: IntArray  # of `features.windows.LABELS`
    true: FloatArray  # GeV of the hard scattering without a track
    distance: FloatArray  # dR to the nearest track
    said: dict[str, FloatArray]  # the same energy, by the way
    # (n_events, 2) GeV, sum of px and of py less that of the true particles in the calorimeter
    imbalance: dict[str, FloatArray]
    sum_et: FloatArray  # (n_events,) GeV, of the latter
    n_elements: IntArray  # (n_events,) tracks and clusters
    seconds: dict[str, FloatArray]  # (n_events,) processor time


def classical(cells: RingCells, method: Method) -> Way:
    """Particle flow with subtraction, neutral objects at the scale of their clusters."""

    def run(event: Event) -> tuple[FloatArray, Inputs]:
        objects = run_flow(event, cells, method)
        energy = objects.neutrals.energy * event.clusters.scale
        return energy, flow_inputs(event, objects, calibrated=True)

    return run


def clusters_alone(event: Event) -> tuple[FloatArray, Inputs]:
    """No particle flow: all clusters are neutral."""
    clusters = event.clusters
    return clusters.energy * clusters.scale, cluster_inputs(event, calibrated=True)


def by_network(cells: RingCells, flow: Flow) -> Way:
    """One network."""

    def run(event: Event) -> tuple[FloatArray, Inputs]:
        particles = flow(event, cells)
        return particles.energy[particles.n_tracks :], particle_inputs(particles)

    return run


def look_at(events: Iterable[Event], cells: RingCells, ways: Mapping[str, Way]) -> Looked:
    """Run every way on every event, which must have truth."""
    columns: dict[str, list[FloatArray]] = {name: [] for name in ("event", "label", "true", "away")}
    said: dict[str, list[FloatArray]] = {name: [] for name in ways}
    imbalance: dict[str, list[FloatArray]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sum_et, n_elements = [], []
    for i, event in enumerate(events):
        elements = event_elements(event, cells)
        of = slice(elements.n_tracks, None)
        targets = dict(zip(TARGETS, element_targets(event, elements)[of].T, strict=True))
        columns["event"].append(np.full(len(targets["label"]), i))
        columns["label"].append(targets["label"])
        columns["true"].append(targets["energy"] * targets["scale"])
        columns["away"].append(_nearest_track(elements.columns[:, [ETA, PHI]], elements.n_tracks))
        px, py, pz, *_ = truth_inputs(event)
        pt = np.hypot(px, py)
        inside = np.abs(pz) < pt * np.sinh(ETA_MAX)
        sum_et.append(pt[inside].sum())
        n_elements.append(len(elements.energy))
        for name, way in ways.items():
            start = time.process_time()
            energy, inputs = way(event)
            seconds[name].append(time.process_time() - start)
            said[name].append(energy)
            sums = [inputs.px.sum() - px[inside].sum(), inputs.py.sum() - py[inside].sum()]
            imbalance[name].append(np.array(sums))
    event, label, true, away = (np.concatenate(parts) for parts in columns.values())
    return Looked(
        event.astype(np.int64),
        label.astype(np.int64),
        true.astype(np.float64),
        away,
        {name: np.concatenate(parts) for name, parts in said.items()},
        {name: np.array(parts) for name, parts in imbalance.items()},
        np.array(sum_et),
        np.array(n_elements),
        {name: np.array(parts) for name, parts in seconds.items()},
    )


def _nearest_track(place: FloatArray, n_tracks: int) -> FloatArray:
    """dR of each cluster to the nearest track; infinite without any."""
    place = place.astype(np.float64)
    if not n_tracks:
        return np.full(len(place), np.inf)
    turns = 2.0 * np.pi * np.array([[0, -1], [0, 0], [0, 1]])
    tracks = np.concatenate([place[:n_tracks] + turn for turn in turns])
    return np.asarray(cKDTree(tracks).query(place[n_tracks:])[0])


class HiddenJets(NamedTuple):
    """Jets with what a network knows of their particles; arrays of shape (n_jets,)."""

    event: IntArray
    pt: FloatArray  # GeV, less pile-up
    eta: FloatArray
    true_pt: FloatArray  # GeV
    charged: FloatArray  # share of pT of tracks
    n_particles: FloatArray
    features: FloatArray  # (n_jets, width) mean over the particles, weighted by energy


def jets_with_hidden(
    fit: ElementFit, events: Iterable[Event], cells: RingCells, *, radius: float = 0.4
) -> HiddenJets:
    """Jets of a network that are matched to truth jets."""
    model = load_model(fit.folder / "model.keras")
    both = keras.Model(model.inputs, [model.output, model.get_layer("norm").output])
    made: list[Inputs] = []
    true: list[Inputs] = []
    known = []
    n_core = int(read_contract(fit.path).training["n_core"])
    n_halo = model.inputs[0].shape[1] - n_core
    for event in events:
        elements = event_elements(event, cells)
        place = elements.columns[:, [ETA, PHI]].T
        windows = cut_windows(*place, n_core=n_core, n_halo=n_halo)
        found = [np.asarray(x) for x in both([write_windows(elements.columns, windows)])]
        said, hidden = (np.zeros((len(elements.energy), x.shape[-1])) for x in found)
        for array, of in zip((said, hidden), found, strict=True):
            array[windows.rows[windows.is_core]] = of[windows.is_core]
        particles = particles_of(elements, said)
        made.append(particle_inputs(particles))
        known.append(hidden[jet_rows(particles)])
        true.append(truth_inputs(event))
    (px, py, pz, e, is_charged), offsets = _joined(made)
    jets = find_jets(px, py, pz, e, offsets, radius=radius, pt_min=2.0, area_eta=ETA_MAX)
    owner = np.repeat(np.arange(len(jets.pt)), ak.to_numpy(ak.num(jets.constituents)))
    rows = ak.to_numpy(ak.flatten(jets.constituents))
    features, pt, n = np.concatenate(known)[rows], np.hypot(px, py)[rows], len(jets.pt)
    energy = np.bincount(owner, e[rows], n)
    mean = [np.bincount(owner, e[rows] * column, n) / energy for column in features.T]
    charged = np.bincount(owner, pt * is_charged[rows], n) / np.bincount(owner, pt, n)
    density = pile_up_density(px, py, pz, e, offsets, eta_max=ETA_MAX)
    jets = subtract_pile_up(jets, density)
    (px, py, pz, e, _), offsets = _joined(true)
    hard = find_jets(px, py, pz, e, offsets, radius=radius, pt_min=4.0)
    pairs = match_jets(jets, hard, eta_max=ETA_MAX - radius, radius=radius)
    used = pairs.reco[jets.pt[pairs.reco] > 0.0]
    true_pt = hard.pt[pairs.truth[jets.pt[pairs.reco] > 0.0]]
    return HiddenJets(
        jets.event[used], jets.pt[used], jets.eta[used], true_pt, charged[used],
        np.bincount(owner, minlength=n)[used], np.stack(mean, axis=-1)[used],
    )  # fmt: skip


def _joined(inputs: list[Inputs]) -> tuple[Inputs, IntArray]:
    offsets = np.concatenate([[0], np.cumsum([len(of.e) for of in inputs])])
    return Inputs(*map(np.concatenate, zip(*inputs, strict=True))), offsets


def pion_events(path: Path, tables: LcwTables) -> Iterator[tuple[Event, int, float]]:
    """Single pions of a sample as events without tracks, with their kind and true energy."""
    sample = read_sample(path)
    number, energy = sample["eventNumber"], sample["clusterE"].astype(np.float64)
    scale = np.ones(len(energy))
    np.divide(tables.apply(sample).full, energy, out=scale, where=energy > 0.0)
    row = sample.geo.rows(sample.cells["cluster_cell_ID"])
    cell_energy = sample.cells["cluster_cell_E"].astype(np.float64)
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    nowhere = np.zeros((0, N_LAYERS))
    tracks = Tracks(*[nothing] * 6, none, nowhere, nowhere, none)
    first = [0, *(np.flatnonzero(np.diff(number)) + 1), len(sample)]
    for start, stop in pairwise(first):
        offsets = sample.offsets[start : stop + 1]
        of = slice(offsets[0], offsets[-1])
        eta, phi = (sample[f"cluster{name}"][start:stop].astype(float) for name in ("Eta", "Phi"))
        clusters = FlowClusters(
            energy[start:stop], eta, phi, scale[start:stop], offsets - offsets[0], row[of],
            cell_energy[of], np.ones(len(cell_energy[of])),
        )  # fmt: skip
        event = Event(int(number[start]), 1.0, 0.0, tracks, clusters, None)
        yield event, int(sample["truthPdgId"][start]), float(sample["truthE"][start])
