"""Events, truth particles, tracks and jets come as they were put in, by ROOT or by ATLAS, in GeV
and with NaN where a track ends.
"""

from __future__ import annotations

import math

import awkward as ak
import numpy as np
import pytest
import uproot
import vector
from samples.real_atlas import real_file
from samples.real_root import JETS, MISSING, TRACK_LAYERS, mltree_content, write_files

from pfcalib.errors import BadFileError
from pfcalib.samples.objects import read_objects


@pytest.fixture(scope="module")
def mltree(tmp_path_factory):
    """A file of the MLTree layout, and what is in its EventTree; beside it two with faults."""
    folder = tmp_path_factory.mktemp("mltree")
    trees = mltree_content(n_events=20).trees
    events = trees["EventTree"]
    few = {
        name: branch
        for name, branch in events.items()
        if name not in ("trackD0", "NPV", "AntiKt4TruthJetsE") and "Eta_EMB" not in name
    }
    few["trackP"] = ("string", ["a"] * 20)
    lengths = {**events, "trackPt": ("vector<float>", [[1.0]] * 20)}
    write_files(
        {
            folder / "all.root": trees,
            folder / "few.root": {"EventTree": few},
            folder / "lengths.root": {"EventTree": lengths},
        }
    )
    return folder / "all.root", {name: values for name, (_, values) in events.items()}


@pytest.fixture(scope="module", params=["physlite_ttbar", "exot"])
def real(request):
    path = real_file(request.param)
    return request.param, path, read_objects(path)


def same(array, values):
    assert ak.to_list(array) == ak.to_list(
        ak.values_astype(ak.Array(ak.to_list(values)), np.float32)
    )


def test_what_root_wrote_is_read_back(mltree):
    path, branches = mltree
    objects = read_objects(path)
    assert objects.missing == {}
    assert objects.event.event_number.to_list() == list(branches["eventNumber"])
    assert objects.event.n_vertices.to_list() == list(branches["NPV"])
    same(objects.event.weight, branches["mcEventWeight"])
    assert objects.truth.pdg_id.to_list() == ak.to_list(branches["truthPartPdgId"])
    assert objects.tracks.truth_index.to_list() == ak.to_list(branches["trackTruthParticleIndex"])
    for field, name in {"pt": "Pt", "e": "E", "mass": "Mass", "eta": "Eta", "phi": "Phi"}.items():
        same(objects.truth[field], branches[f"truthPart{name}"])
    for field, name in {
        "pt": "Pt",
        "p": "P",
        "eta": "Eta",
        "phi": "Phi",
        "d0": "D0",
        "z0": "Z0",
        "chi2": "ChiSquared",
    }.items():
        same(objects.tracks[field], branches[f"track{name}"])
    assert set(objects.jets) == set(JETS)
    for container in JETS:
        for field, name in {"pt": "Pt", "eta": "Eta", "phi": "Phi", "e": "E"}.items():
            same(objects.jets[container][field], branches[container + name])


def test_layers_that_a_track_does_not_reach_are_nan(mltree):
    path, branches = mltree
    tracks = read_objects(path).tracks
    for layer in TRACK_LAYERS:
        for axis in ("eta", "phi"):
            here = ak.to_numpy(ak.flatten(tracks[f"{axis}_{layer}"]))
            put_in = np.array(
                ak.to_list(ak.flatten(branches[f"track{axis.title()}_{layer}"])), dtype=np.float32
            )
            assert np.array_equal(np.isnan(here), put_in == np.float32(MISSING))
            assert np.array_equal(here[~np.isnan(here)], put_in[put_in != np.float32(MISSING)])
    assert 0.0 < np.isnan(ak.to_numpy(ak.flatten(tracks.eta_EMB2))).mean() < 1.0


def test_a_range_of_events_is_a_part_of_all(mltree):
    path, _ = mltree
    whole, part = read_objects(path), read_objects(path, entry_start=5, entry_stop=9)
    assert len(part.event) == len(part.tracks) == len(part.truth) == 4
    assert part.tracks.pt.to_list() == whole.tracks.pt[5:9].to_list()
    assert len(read_objects(path, entry_start=30).event) == 0


def test_what_is_not_there_is_named(mltree):
    objects = read_objects(mltree[0].with_name("few.root"))
    layers = {f"tracks.eta_{layer}" for layer in ("EMB1", "EMB2", "EMB3")}
    assert (
        set(objects.missing)
        == {"tracks.d0", "tracks.p", "event.n_vertices", "jets.AntiKt4TruthJets.e"} | layers
    )
    assert objects.missing["tracks.d0"] == "the file has no branch trackD0"
    assert "branch trackP is of type" in objects.missing["tracks.p"]
    assert not {"d0", "p", "eta_EMB1"} & set(objects.tracks.fields)
    assert {"phi_EMB1", "pt"} <= set(objects.tracks.fields)


def test_vectors_that_disagree_name_branch_and_entry(mltree):
    with pytest.raises(
        BadFileError,
        match=r"lengths.root: EventTree: entry 1: trackP does not have the same length as trackPt",
    ):
        read_objects(mltree[0].with_name("lengths.root"))


def test_tracks_of_xaod_have_momenta_in_gev(real):
    _, path, objects = real
    with uproot.open(path) as file:
        names = [f"InDetTrackParticlesAuxDyn.{name}" for name in ("theta", "qOverP", "phi", "d0")]
        theta, q_over_p, phi, d0 = (
            ak.flatten(file["CollectionTree"][name].array()).to_list() for name in names
        )
    tracks = ak.flatten(objects.tracks).to_list()
    assert len(tracks) > 2000
    for i in range(0, len(tracks), 50):
        p = 1e-3 / abs(q_over_p[i])
        assert tracks[i]["p"] == pytest.approx(p, rel=1e-6)
        assert tracks[i]["pt"] == pytest.approx(p * math.sin(theta[i]), rel=1e-6)
        assert p * math.tanh(tracks[i]["eta"]) == pytest.approx(
            p * math.cos(theta[i]), rel=1e-5, abs=1e-6
        )
        assert (tracks[i]["phi"], tracks[i]["d0"]) == (phi[i], d0[i])
        assert tracks[i]["charge"] == (1 if q_over_p[i] > 0 else -1)
    assert {"tracks.extrapolations", "tracks.truth_index"} <= set(objects.missing)


def test_jets_of_xaod_agree_with_vector(real):
    name, path, objects = real
    container = {"physlite_ttbar": "AnalysisJets", "exot": "AntiKt4EMTopoJets"}[name]
    aux = f"{container}AuxDyn." if name == "physlite_ttbar" else f"{container}Aux./{container}Aux."
    with uproot.open(path) as file:
        pt, eta, phi, mass = (
            file["CollectionTree"][aux + field].array() for field in ("pt", "eta", "phi", "m")
        )
    oracle = vector.zip(
        {
            "pt": ak.values_astype(pt, np.float64) / 1e3,
            "eta": eta,
            "phi": phi,
            "mass": ak.values_astype(mass, np.float64) / 1e3,
        }
    )
    jets = objects.jets[container]
    assert ak.num(jets).to_list() == ak.num(pt).to_list()
    for field, expected in {
        "pt": oracle.pt,
        "e": oracle.E,
        "eta": eta,
        "phi": phi,
        "mass": oracle.mass,
    }.items():
        assert ak.to_numpy(ak.flatten(jets[field])) == pytest.approx(
            ak.to_numpy(ak.flatten(expected)), rel=1e-5, abs=1e-6
        )
    assert 10.0 < ak.mean(jets.pt) < 200.0


def test_truth_particles_lie_on_their_mass_shell(real):
    name, _, objects = real
    truth = ak.flatten(objects.truth)
    assert len(truth) == {"physlite_ttbar": 1441, "exot": 14974}[name]
    moving = truth[(truth.pt > 0.1) & (truth.status == 1)]
    e_squared = (moving.pt * np.cosh(moving.eta)) ** 2 + moving.mass**2
    assert ak.to_numpy(np.sqrt(e_squared)) == pytest.approx(ak.to_numpy(moving.e), rel=1e-3)
    expected = {11, 13, 15, 22, 12, 14, 16} if name == "physlite_ttbar" else {22, 211, 2212}
    assert expected <= set(np.abs(ak.to_numpy(truth.pdg_id)).tolist())


def test_containers_without_variables_are_named(real):
    name, _, objects = real
    if name == "physlite_ttbar":
        assert (
            "AntiKt4TruthDressedWZJets has no pt"
            in objects.missing["jets.AntiKt4TruthDressedWZJets"]
        )
        assert "AntiKt4TruthDressedWZJets" not in objects.jets
    assert not [
        key for key in objects.missing if key.startswith("event.") and key != "event.n_vertices"
    ]


def test_jets_of_a_static_container_are_read_too():
    objects = read_objects(
        real_file("jets_r22"),
        jets=["AntiKt4EMTopoJets", "AntiKt4EMPFlowJets"],
        truth=["TruthParticles"],
    )
    assert ak.sum(ak.num(objects.jets["AntiKt4EMTopoJets"])) == 93
    assert (
        objects.missing["jets.AntiKt4EMPFlowJets"] == "the file has no container AntiKt4EMPFlowJets"
    )
    assert objects.missing["truth.TruthParticles"] == "the file has no container TruthParticles"
    assert ak.num(objects.truth).to_list() == [0] * 10
    assert objects.event.event_number[0] == 1729590


def test_another_tree_is_refused(tmp_path):
    with uproot.recreate(tmp_path / "other.root") as file:
        file.mktree("Events", {"x": "int32"})
    with pytest.raises(
        BadFileError,
        match=r"no tree EventTree \(MLTree\) or CollectionTree \(xAOD\); the file has Events",
    ):
        read_objects(tmp_path / "other.root")
