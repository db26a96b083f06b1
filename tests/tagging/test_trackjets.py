"""Jets of Pythia with tracks: lifetimes, labels, the table of tracks, processes and a stopped
call.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib import recfunctions as rfn
from particle import Particle
from tagging.toy_jets import toy_jets

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.simulation.genrecord import Record, charges
from pfcalib.tagging import trackjets
from pfcalib.tagging.ftagfiles import (
    B_JET,
    FROM_B,
    FROM_BC,
    PILE_UP,
    PRIMARY,
    TAU_JET,
    TaggedJets,
    read_tagged,
    write_tagged,
)
from pfcalib.tagging.jettracks import measure_tracks
from pfcalib.tagging.trackjets import (
    MAX_ETA,
    PT_MIN,
    TaggedConfig,
    ancestry,
    cached_tagged,
    gather_tagged,
    heavy_particles,
    jets_of,
    simulate_tagged,
    start_process,
)

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")
CONFIG = TaggedConfig(n_events=120, seed=5, chunk=60)


@pytest.fixture(scope="module")
def made():
    return [simulate_tagged(CONFIG, number) for number in range(2)]


@pytest.fixture(scope="module")
def sample(made):
    return TaggedJets(*(np.concatenate([x[name] for x in made]) for name in ("jets", "tracks")))


def test_hadrons_fly_as_far_as_their_lifetimes_say():
    """c tau of the Particle Data Group, from Pythia's record."""
    record = Record.read(start_process("ttbar", 0, 3).nextBatch(60))
    _, _, kind = ancestry(record)
    heavy = heavy_particles(record, kind)
    mesons = np.flatnonzero(np.isin(np.abs(heavy.pdg_id), (511, 521, 531)))
    p2 = np.sum(heavy.momentum[mesons] ** 2, axis=1)
    mass = np.sqrt(heavy.energy[mesons] ** 2 - p2)
    known = {n: Particle.from_pdgid(n).ctau for n in (511, 521, 531)}
    expected = np.array([known[abs(n)] for n in heavy.pdg_id[mesons].tolist()])
    proper = np.linalg.norm(heavy.decay[mesons], axis=1) * mass / np.sqrt(p2) / expected
    assert len(proper) > 80
    assert proper.mean() == pytest.approx(1.0, abs=4.0 / np.sqrt(len(proper)))
    assert (heavy.kind == 5).sum() == pytest.approx(120, abs=12)  # of two b quarks an event


def test_jets_are_those_of_top_quarks(sample):
    jets = sample.jets
    assert (jets["pt"] > PT_MIN).all()
    assert (np.abs(jets["eta"]) < MAX_ETA).all()
    assert 3.0 < len(sample) / CONFIG.n_events < 7.0
    share = {label: (sample.label == label).mean() for label in (5, 4, 0, 15)}
    assert 0.2 < share[5] < 0.45
    assert 0.05 < share[4] < 0.2
    assert share[TAU_JET] < 0.06
    assert np.isnan(jets["HadronConeExclTruthLabelPt"][sample.label == 0]).all()
    b = jets[sample.label == B_JET]
    assert (b["HadronConeExclTruthLabelPt"] > 5.0).all()
    assert 1.0 < np.median(b["HadronConeExclTruthLabelLxy"]) < 6.0  # mm
    assert np.median(b["ptFromTruthDressedWZJet"] / b["pt"]) == pytest.approx(1.0, abs=0.1)


def test_tracks_are_sorted_padded_and_know_where_they_come_from(sample):
    tracks, valid = sample.tracks, sample.valid
    size = np.abs(tracks["lifetimeSignedD0Significance"])
    assert (np.diff(size, axis=1) <= 0.0).all()
    assert tracks[~valid].tobytes().strip(b"\0") == b""
    np.testing.assert_array_equal(valid.sum(axis=1), np.minimum(sample.jets["n_tracks"], 40))
    origin = np.where(valid, tracks["ftagTruthOriginLabel"], -1)
    vertex = tracks["ftagTruthVertexIndex"]
    assert (vertex[origin == PRIMARY] == 0).all()
    assert (vertex[origin == PILE_UP] == -2).all()
    of_b = np.isin(origin, (FROM_B, FROM_BC))
    b = sample.label == B_JET
    assert of_b[b].sum(axis=1).mean() > 2.0
    assert of_b[~b].sum(axis=1).mean() < 0.2
    assert (vertex[of_b] > 0).mean() > 0.8
    # tracks of b hadrons lie in front of the collision more often than behind
    signed = tracks["lifetimeSignedD0Significance"]
    assert (signed[of_b] > 3.0).sum() > 6 * (signed[of_b] < -3.0).sum()
    light = (origin == PRIMARY) & (sample.label == 0)[:, None]
    low, high = np.quantile(signed[light], [0.16, 0.84])
    assert 0.5 * (high - low) == pytest.approx(1.0, abs=0.12)
    assert (tracks["pt"][valid] > 0.5).all()


def test_heavy_bosons_make_hard_jets_whose_hadrons_miss_the_innermost_layer():
    # of chunks 0, 3, 6... to b quarks
    config = TaggedConfig(process="zprime", n_events=10_000, seed=3, chunk=40)
    parts = [simulate_tagged(config, number) for number in (0, 3)]
    sample = TaggedJets(*(np.concatenate([x[y] for x in parts]) for y in ("jets", "tracks")))
    jets = sample.jets
    assert (jets["mcChannelNumber"] == 2).all()
    hard = (jets["pt"] > 500.0) & (sample.label == B_JET)
    assert hard.sum() > 30
    assert np.mean(jets["HadronConeExclTruthLabelLxy"][hard]) > 15.0  # mm
    hits = sample.tracks["numberOfInnermostPixelLayerHits"]
    from_b = np.isin(sample.tracks["ftagTruthOriginLabel"], (FROM_B, FROM_BC)) & sample.valid
    others = sample.valid & (sample.tracks["ftagTruthOriginLabel"] == PRIMARY)
    assert hits[from_b & hard[:, None]].mean() < 0.9 * hits[others & hard[:, None]].mean()


def test_processes_and_a_stopped_call_change_nothing(made, sample, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    path = cached_tagged(CONFIG, n_processes=2)
    read = read_tagged(path)
    assert read.tracks.tobytes() == sample.tracks.tobytes()
    for name in sample.jets.dtype.names:
        np.testing.assert_array_equal(read.jets[name], sample.jets[name])
    path.unlink()
    calls = []

    def killed(config, number):
        calls.append(number)
        if number == 1 and calls.count(1) == 1:
            raise KeyboardInterrupt
        return made[number]

    monkeypatch.setattr(trackjets, "simulate_tagged", killed)
    with pytest.raises(KeyboardInterrupt):
        cached_tagged(CONFIG)
    assert cached_tagged(CONFIG) == path
    assert calls == [0, 1, 1]
    assert read_tagged(path).tracks.tobytes() == sample.tracks.tobytes()


def test_own_files_take_the_place_of_samples(tmp_path):
    toys = {"ttbar": toy_jets(60), "zprime": toy_jets(30, seed=2, n_tracks=50)}
    for toy in toys.values():
        toy.jets["mcChannelNumber"] = 410470
    for process, toy in toys.items():
        write_tagged(tmp_path / f"{process}.h5", toy)
    own = {process: tmp_path / f"{process}.h5" for process in toys}
    sample, files = gather_tagged(dict.fromkeys(toys, 1), own)
    assert files == list(own.values())
    assert sample.tracks.shape == (90, 50)
    assert np.bincount(sample.jets["mcChannelNumber"]).tolist() == [0, 60, 30]
    np.testing.assert_allclose(sample.jets["pt"][60:], toys["zprime"].jets["pt"], rtol=1e-6)
    np.testing.assert_array_equal(sample.valid.sum(axis=1), sample.jets["n_tracks"])

    with pytest.raises(ConfigError, match="'higgs': expected one of ttbar"):
        gather_tagged({"ttbar": 1}, {"higgs": own["ttbar"]})
    b_jets = toys["ttbar"][toys["ttbar"].label == 5]
    write_tagged(own["ttbar"], b_jets)
    with pytest.raises(BadFileError, match=r"ttbar\.h5: jets: .*expected some light jets"):
        gather_tagged({"ttbar": 1}, {"ttbar": own["ttbar"]})
    lacking = b_jets.tracks[[name for name in b_jets.tracks.dtype.names if name != "qOverP"]]
    write_tagged(own["ttbar"], TaggedJets(b_jets.jets, rfn.repack_fields(lacking)))
    with pytest.raises(BadFileError, match=r"ttbar\.h5: tracks: no field qOverP"):
        gather_tagged({"ttbar": 1}, {"ttbar": own["ttbar"]})


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="expected one of ttbar, zprime"):
        TaggedConfig(process="higgs")
    with pytest.raises(ConfigError, match="n_events = 0"):
        TaggedConfig(n_events=0)


def test_charges_follow_from_the_numbering():
    np.testing.assert_array_equal(charges(np.array([211, -11, 22, 521, -4122])), [1, 1, 0, 1, -1])


def test_tracks_in_the_core_of_hard_jets_are_lost_as_published(monkeypatch):
    """About 80 % are found within 0.02 of the axis at 1400-1600 GeV (arXiv:1704.07983)."""
    kept = {}

    def spy(particles, n_jets, rng):
        kept["particles"], kept["tracks"] = particles, measure_tracks(particles, n_jets, rng)
        return kept["tracks"]

    monkeypatch.setattr(trackjets, "measure_tracks", spy)
    events = start_process("zprime", 11, 5).nextBatch(60)  # light jets of up to 1.6 TeV
    jets, _ = jets_of(events, np.random.default_rng(1), mu=0.0)

    def near(eta, phi, jet):
        turned = np.remainder(phi - jets["phi"][jet] + np.pi, 2.0 * np.pi) - np.pi
        core = np.hypot(eta - jets["eta"][jet], turned) < 0.02
        return core & (jets["pt"][jet] > 1000.0)

    made, found = kept["particles"], kept["tracks"]
    px, py, pz = made.momentum.T
    pt = np.hypot(px, py)
    true = made.seen & (pt > 0.5) & (made.origin == PRIMARY)
    true &= near(np.arcsinh(pz / pt), np.arctan2(py, px), made.jet)
    seen = near(np.arcsinh(1.0 / np.tan(found.theta)), found.phi, found.jet)
    seen &= found.origin == PRIMARY
    assert true.sum() > 150
    assert seen.sum() / true.sum() == pytest.approx(0.8, abs=0.12)
