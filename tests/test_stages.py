"""What each stage computes is what its number in `cache.VERSIONS` stands for.

A key of the cache holds these numbers in place of the code. So whoever changes what a stage
computes must raise its number, else old samples, networks and tables are taken for new ones; this
test says when. ``python tests/test_stages.py`` writes the new values to ``stages.json`` afterwards.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from factories import make_sample
from particleflow.hand_made import CELLS, random_event

from pfcalib.cache import VERSIONS
from pfcalib.calibration.eoverp import EoverPConfig, EoverPTable, Pions, fit_eoverp
from pfcalib.calibration.lcw import LcwConfig, apply_lcw, derive_lcw
from pfcalib.calibration.rings import N_LAYERS, N_RINGS
from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import find_clusters
from pfcalib.fastsim.ecalimages import EcalConfig, simulate_images
from pfcalib.fastsim.fibres import FibreConfig, simulate_fibres
from pfcalib.fastsim.richtoy import RichConfig, simulate_rich
from pfcalib.fastsim.voxels import VoxelConfig, simulate_voxels
from pfcalib.geometry import GRIDS, WINDOW
from pfcalib.higgs.candidates import CandidateConfig, simulate_candidates
from pfcalib.higgs.topevents import TopConfig, simulate_chunk
from pfcalib.jets.boosted import BoostedConfig, simulate_boosted
from pfcalib.jets.jetsample import JetSampleConfig, simulate_part
from pfcalib.jets.particlejets import ParticleJetConfig, simulate_jets
from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.methods import build_method
from pfcalib.samples.maps import open_cache
from pfcalib.samples.write import write_sample
from pfcalib.simulation.collisions import cross_section
from pfcalib.simulation.crossings import EventsConfig, build_branches, simulate_crossings
from pfcalib.simulation.digitise import digitise, noise_sigma
from pfcalib.simulation.geant4.engine import simulate_batches
from pfcalib.simulation.geant4.formulas import (
    bremsstrahlung,
    neutron_capture,
    neutron_elastic,
    neutron_inelastic,
)
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import Particles, simulate_gun
from pfcalib.simulation.pileup import simulate_pool
from pfcalib.simulation.pythia import DijetConfig, simulate_dijets
from pfcalib.simulation.showers import simulate_showers
from pfcalib.tagging.trackjets import TaggedConfig, simulate_tagged
from pfcalib.tpc.digits import DigitsConfig, simulate_pieces
from pfcalib.tracking.barrelhits import BarrelConfig, simulate_barrel_events
from pfcalib.tracking.beamline import BeamLineConfig, simulate_beam_events
from pfcalib.tracking.forwardhits import ForwardConfig, simulate_forward_events
from pfcalib.tracking.longlived import LongLivedConfig
from pfcalib.tracking.segments import SegmentConfig, simulate_segments
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, fit_network
from pfcalib.training.stream import ClusterStream
from pfcalib.trigger.regions import CrossingConfig, simulate_deposits, simulate_regions
from pfcalib.trigger.twobody import TwoBodyConfig, simulate_two_bodies

RECORD = Path(__file__).with_name("stages.json")
# relative, of a stage or of values whose name begins so: rounding depends on the processor, and a
# fit by a limited number of steps carries it on
TOLERANCE = {"training": 2e-3, "geant4": 1e-3, "fitted": 1e-3}
SEED = 11


def shoot(n_events: int, grid: str = "window"):
    """Half neutral, half charged pions of 0.5-20 GeV."""
    rng = np.random.default_rng(SEED)
    limit = 0.05 if grid == "window" else 0.7
    where = {"energy": (0.5, 20.0), "eta": (-limit, limit), "phi": (-limit, limit)}
    guns = [simulate_gun(name, n_events // 2, rng, **where) for name in ("pi0", "pi+")]
    columns = [np.concatenate(column) for column in zip(*guns, strict=True)]
    return Particles(np.arange(n_events), *columns[1:]), GRIDS[grid], rng


def sums(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Sum of each array, and its sum weighted with the place, so that the order counts too."""
    found = {}
    for name, array in arrays.items():
        values = np.asarray(array, dtype=np.float64).ravel()
        found[f"{name} n"] = float(len(values))
        found[f"{name} sum"] = float(values.sum())
        found[f"{name} moment"] = float(values @ np.linspace(0.0, 1.0, len(values)))
    return found


def simulation() -> dict[str, float]:
    """Showers in the barrel, and noise."""
    particles, grid, rng = shoot(40, "barrel")
    hits = simulate_showers(particles, grid, rng, field=2.0)
    energy = digitise(hits, grid, noise_sigma(grid), rng)
    return sums({"signal": hits.signal, "cell": hits.cell, "energy": energy[:3]})


def clustering() -> dict[str, float]:
    """Clusters of a fixed pattern of cells, with moments."""
    rng = np.random.default_rng(SEED)
    sigma = np.full(WINDOW.n_cells, 0.03)
    energy = rng.normal(0.0, 0.03, (4, WINDOW.n_cells))
    spots = rng.integers(WINDOW.n_cells, size=(4, 60))
    np.put_along_axis(energy, spots, rng.exponential(0.6, spots.shape), axis=1)
    clusters = find_clusters(energy, sigma, WINDOW)
    moments = cluster_moments(clusters, energy, sigma, WINDOW)
    return sums({"cell": clusters.cell, "weight": clusters.weight, **moments})


def geant4() -> dict[str, float]:
    """Four pions in the window."""
    particles, grid, rng = shoot(4)
    shots = build_shots(particles._replace(energy=np.full(4, 1.0)), rng)
    with tempfile.TemporaryDirectory() as folder:
        hits = next(simulate_batches([shots], grid, Path(folder))).hits
    return sums({"signal": hits.signal, "cell": hits.cell})


def geant4_tables() -> dict[str, float]:
    """Cross sections of lead and oxygen."""
    energy = np.geomspace(1e-3, 20.0, 9)
    return sums(
        {
            "bremsstrahlung": bremsstrahlung(82, 100.0, np.linspace(0.1, 0.9, 5)),
            "inelastic": neutron_inelastic(82, 207.2, energy),
            "elastic": neutron_elastic(8, 16.0, energy),
            "capture": neutron_capture(82, energy),
        }
    )


def pythia() -> dict[str, float]:
    """Dijets."""
    particles = simulate_dijets(4, np.random.default_rng(SEED), DijetConfig(), field=2.0)
    return sums({"energy": particles.energy, "eta": particles.eta, "pdg_id": particles.pdg_id})


def events() -> dict[str, float]:
    """Dijets of three slices with a little pile-up."""
    config = EventsConfig(n_events=3, mu=4.0, n_pool=6, seed=SEED)
    pool, chunk = simulate_pool(config.pool_config, 0), config.chunks[1]
    normal = cross_section(config.collisions, chunk.part)
    branches = build_branches(config, chunk, simulate_crossings(config, chunk, pool), normal)
    wanted = ("mcEventWeight", "trackPt", "trackZ0", "trackEta_EMB2", "hitSignal", "hitParticle")
    flat = {name: ak.to_numpy(ak.flatten(branches[name], axis=None)) for name in wanted}
    return sums({name: np.maximum(array, -1e3) for name, array in flat.items()})  # not reached


def _toy(folder: Path) -> Path:
    path = folder / "toy.root"
    write_sample(path, make_sample(np.random.default_rng(SEED), 400))
    return path


def _in_a_folder(compute: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return compute(_toy(Path(folder)))


def maps() -> dict[str, float]:
    """Arrays of a memory-mapped sample."""

    def compute(path: Path) -> dict[str, float]:
        cached = open_cache(path)
        return sums({"cell": cached.cell, "energy": cached.energy, "offsets": cached.offsets})

    return _in_a_folder(compute)


def features() -> dict[str, float]:
    """What a stream hands to a network: images and labels of balanced training clusters."""

    def compute(path: Path) -> dict[str, float]:
        options = {"split": "train", "balance": "subsample", "seed": SEED, "shuffle": True}
        inputs, labels, *_ = ClusterStream(path, kind="layers", batch_size=64, **options)[0]
        return sums({**inputs, "labels": labels})

    return _in_a_folder(compute)


def training() -> dict[str, float]:
    """Losses of a small network."""

    def compute(path: Path) -> dict[str, float]:
        train = TrainConfig(epochs=2, learning_rate=0.003, seed=SEED)
        network = fit_network(path, NetworkConfig(name="dnn", options={"widths": [8]}, train=train))
        history = network.result.history
        return {name: float(history[name][-1]) for name in ("loss", "val_loss")}

    return _in_a_folder(compute)


def lcw() -> dict[str, float]:
    """Energies of the sample that the tables were derived from, without and with the fit."""

    def compute(path: Path) -> dict[str, float]:
        found = {}
        for name, config in (("plain", LcwConfig(closure_iterations=0)), ("fitted", LcwConfig())):
            energies = apply_lcw(path, derive_lcw(path, split="all", config=config))
            found |= {f"{name} cells": energies.cells, f"{name} full": energies.full}
        return sums(found)

    return _in_a_folder(compute)


def _eoverp() -> EoverPTable:
    """Table of pions whose E/p is Gaussian."""
    rng, config = np.random.default_rng(SEED), EoverPConfig(energy_edges=(1.0, 4.0, 16.0))
    n = 4000
    p, eta, layer = rng.uniform(1.0, 16.0, n), rng.uniform(-0.8, 0.8, n), rng.integers(1, 7, n)
    energy = p * rng.normal(0.6, 0.15, n)
    density = rng.exponential(1.0, (*config.shape, N_LAYERS, N_RINGS))
    return fit_eoverp(Pions(p, eta, energy, layer, density), config)


def eoverp() -> dict[str, float]:
    """Fits of E/p and the order of the rings."""
    table = _eoverp()
    return sums({"mean": table.mean, "sigma": table.sigma, "order": table.arrays.order})


def particleflow() -> dict[str, float]:
    """What tracks take by rings, and what is left."""
    rng, method = np.random.default_rng(SEED), build_method("rings", table=_eoverp())
    objects = [run_flow(random_event(rng), CELLS, method) for _ in range(20)]
    columns = {"removed": [of.removed for of in objects]}
    columns |= {name: [getattr(of.neutrals, name) for of in objects] for name in ("energy", "eta")}
    return sums({name: np.concatenate(parts) for name, parts in columns.items()})


def higgs() -> dict[str, float]:
    """Candidates of pairs of Higgs bosons and of the continuum."""
    found = {}
    for process in ("hh", "yy"):
        config = CandidateConfig(process=process, n_events=60, seed=SEED)
        columns = simulate_candidates(config)
        found |= {f"{process} {name}": columns[name] for name in ("weight", "m_yy", "m_bb", "met")}
    return sums(found)


def topevents() -> dict[str, float]:
    """Pairs of top quarks, alone, with b quarks and with a Higgs boson."""
    found = {}
    for process in ("tth", "ttbb", "tt"):
        events = simulate_chunk(TopConfig(process=process, n_events=60, seed=SEED), 0)
        found |= {f"{process} {name}": column for name, column in events._asdict().items()}
    return sums(found)


def jet_calibration() -> dict[str, float]:
    """Jets of two dijets without pile-up, with what their calibration may know of them."""
    config = JetSampleConfig(
        n_parts=3, chunk=2, mus=(0.0,), pt_hat=(60.0, 90.0), shares=(1, 1, 1), seed=SEED,
        large_pt_min=40.0,
    )  # fmt: skip
    columns = simulate_part(config, 0)
    wanted = ("pt", "pt_true", "parton", "n_track", "w_track", "n_90", "f_charged", "f_TileBar0")
    large = {name: columns[f"large/{name}"] for name in ("mass", "mass_true")}
    return sums(
        {name: columns[f"jets/{name}"] for name in wanted} | large | {"points": columns["points"]}
    )


def boosted() -> dict[str, float]:
    """Large jets of Z and Higgs bosons."""
    columns = simulate_boosted(BoostedConfig(process="zh", n_events=12, seed=SEED))
    wanted = ("truth_mass", "calo_mass", "tcc_d2", "flow_pt", "ufo_tau21", "n_tags")
    return sums({name: np.nan_to_num(columns[name]) for name in wanted})


def particlejets() -> dict[str, float]:
    """Jets of W bosons and of QCD, their trees and shapes."""
    found = {}
    for process in ("qcd", "w"):
        jets = simulate_jets(ParticleJetConfig(process=process, n_events=25, seed=SEED), 0)
        columns = {name: getattr(jets, name) for name in ("pt", "apart", "mother", "n_particles")}
        columns |= {"shapes": jets.shapes.ravel(), "nodes": jets.nodes.ravel()}
        found |= {f"{process} {name}": values for name, values in columns.items()}
    return sums(found)


def tagging() -> dict[str, float]:
    """Jets with tracks of top quarks and of a heavy Z boson."""
    found = {}
    for process in ("ttbar", "zprime"):
        made = simulate_tagged(TaggedConfig(process=process, n_events=12, seed=SEED), 0)
        for table in made.values():
            columns = {name: np.nan_to_num(table[name]) for name in table.dtype.names}
            found |= {f"{process} {name}": column for name, column in columns.items()}
    return sums(found)


def barrelhits() -> dict[str, float]:
    """Hits of helices that scatter."""
    events = simulate_barrel_events(BarrelConfig(n_events=2, n_tracks=50, seed=SEED), 0)
    return sums({"position": events.position, "layer": events.layer, "particle": events.particle})


def forwardhits() -> dict[str, float]:
    """Hits of straight lines that scatter, and of their decays."""
    events = simulate_forward_events(ForwardConfig(n_events=2, mu=1.0, seed=SEED), 0)
    wanted = ("position", "layer", "particle", "second", "kind", "p")
    return sums({name: getattr(events, name) for name in wanted})


def beamline() -> dict[str, float]:
    """Tracks of collisions on a beam line."""
    events = simulate_beam_events(BeamLineConfig(n_events=5, seed=SEED), 0)
    wanted = ("tracks", "origin", "is_prompt", "vertices", "n_prompt")
    return sums({name: getattr(events, name) for name in wanted})


def digits() -> dict[str, float]:
    """Charge on pads and crossings."""
    config = DigitsConfig(n_pieces=1, n_rows=8, n_pads=40, n_times=60, tracks=(20.0, 20.0))
    pieces = simulate_pieces(config, 0)
    return sums(pieces._asdict())


def twobody() -> dict[str, float]:
    """Pairs of tracks of collisions with b quarks."""
    made = simulate_two_bodies(TwoBodyConfig(process="b", n_events=60, seed=SEED), 0)
    return sums(made._asdict())


def segments() -> dict[str, float]:
    """Candidates of five hits in events with decays."""
    events = LongLivedConfig(n_events=2, n_tracks=200, n_decays=20, seed=SEED)
    found = simulate_segments(SegmentConfig(events=events), 0)
    return sums(found._asdict())


def fastsim() -> dict[str, float]:
    """Showers of pions by the parametrised engine as voxels."""
    energies = (0.512, 4.096)
    config = VoxelConfig(particle="pion", engine="parametrised", energies=energies, n_most=10)
    return sums(simulate_voxels(config, 0))


def detectors() -> dict[str, float]:
    """Differences of Cherenkov light, images of fibres and of photons."""
    tracks, differences = simulate_rich(RichConfig(n_tracks=50))
    hits, images = simulate_fibres(FibreConfig(n_images=6))
    photons = simulate_images(EcalConfig(n_images=6), 0)
    cherenkov = {"differences": differences, "momentum": tracks.momentum}
    return sums({**cherenkov, "fibres": images, "x": hits.x, **photons._asdict()})


def regions() -> dict[str, float]:
    """Regions of crossings with top quarks, and of scalars."""
    found = {}
    for signal in ("ttbar", "suep"):
        config = CrossingConfig(
            n_crossings=3, mu=5.0, signal=signal, n_soft=20, n_hard=5, pool_seed=SEED, seed=SEED
        )
        sources = {name: simulate_deposits(one, 0) for name, one in config.sources.items()}
        made = simulate_regions(config, sources, 0)
        found |= {f"{signal} {name}": values for name, values in made._asdict().items()}
    return sums(found)


STAGES: dict[str, Callable[[], dict[str, float]]] = {
    "simulation": simulation, "clustering": clustering, "geant4": geant4,
    "geant4_tables": geant4_tables, "pythia": pythia, "events": events, "maps": maps,
    "features": features, "training": training, "lcw": lcw, "eoverp": eoverp,
    "particleflow": particleflow, "higgs": higgs, "topevents": topevents,
    "jet_calibration": jet_calibration, "boosted": boosted, "particlejets": particlejets,
    "tagging": tagging,
    "barrelhits": barrelhits, "forwardhits": forwardhits, "beamline": beamline,
    "digits": digits, "segments": segments, "regions": regions, "twobody": twobody,
    "fastsim": fastsim, "detectors": detectors,
}  # fmt: skip
NEEDS = {  # extras
    "geant4": "geant4_pybind", "pythia": "pythia8mc", "events": "pythia8mc", "higgs": "pythia8mc",
    "topevents": "pythia8mc", "jet_calibration": "pythia8mc", "boosted": "pythia8mc",
    "particlejets": "pythia8mc", "tagging": "pythia8mc",
    "regions": "pythia8mc", "twobody": "pythia8mc",
}  # fmt: skip


def test_every_stage_is_watched():
    assert STAGES.keys() == VERSIONS.keys() == json.loads(RECORD.read_text()).keys()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_computes_what_its_version_stands_for(stage):
    if stage in NEEDS and importlib.util.find_spec(NEEDS[stage]) is None:
        pytest.skip(f"{NEEDS[stage]} is not installed")
    record = json.loads(RECORD.read_text())[stage]
    found = STAGES[stage]()

    def expected(name: str) -> object:
        relative = TOLERANCE.get(stage, TOLERANCE.get(name.split()[0], 1e-5))
        return pytest.approx(found.get(name), rel=relative, abs=1e-9)

    names = record["values"].keys() | found.keys()
    changed = [name for name in names if record["values"].get(name) != expected(name)]
    hint = "then python tests/test_stages.py"
    if changed and record["version"] == VERSIONS[stage]:
        pytest.fail(
            f"{stage} computes something else than its version {VERSIONS[stage]} stands for "
            f"({', '.join(sorted(changed))}): raise its number in pfcalib/cache.py, {hint}"
        )
    assert record["version"] == VERSIONS[stage], f"the record is of another version: {hint}"
    assert not changed


if __name__ == "__main__":
    record = {
        name: {"version": VERSIONS[name], "values": compute()} for name, compute in STAGES.items()
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
