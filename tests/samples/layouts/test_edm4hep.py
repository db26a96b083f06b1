"""Clusters of real EDM4hep files come with energies, subdetectors and linked particles."""

import awkward as ak
import numpy as np
import pytest
import uproot
from samples.real_atlas import real_file

from pfcalib.columns import SUBDETECTORS
from pfcalib.errors import BadFileError
from pfcalib.samples.check import check_sample
from pfcalib.samples.layouts.edm4hep import LAYOUT
from pfcalib.samples.layouts.recognise import recognise
from pfcalib.samples.read import iterate_sample, read_sample


@pytest.fixture(scope="module")
def ild():
    """Ten events e+e- -> mu mu H in ILD."""
    return real_file("edm4hep_ild")


def test_clusters_of_ild_are_those_of_the_file(ild):
    assert recognise(ild).name == "EDM4hep"
    sample = read_sample(ild)
    with uproot.open(ild) as file:
        tree = file["events"]
        raw = {
            name: tree[f"PandoraClusters/PandoraClusters.{name}"].array()
            for name in ("energy", "position.x", "position.y", "position.z")
        }
    np.testing.assert_array_equal(sample["clusterE"], ak.flatten(raw["energy"]))
    x, y, z = (ak.to_numpy(ak.flatten(raw[f"position.{axis}"])).astype(float) for axis in "xyz")
    np.testing.assert_allclose(sample["clusterPhi"], np.arctan2(y, x), rtol=1e-5)
    np.testing.assert_allclose(np.tanh(sample["clusterEta"]), z / np.sqrt(x**2 + y**2 + z**2), 1e-4)
    np.testing.assert_array_equal(np.unique(sample["eventNumber"]), np.arange(10))
    parts = sum(sample[f"cluster_E_{name}"].astype(float) for name in SUBDETECTORS)
    assert np.median(parts / sample["clusterE"]) == pytest.approx(1.0, abs=0.2)
    report = check_sample(ild)
    assert (report.n_events, report.n_clusters, report.problems) == (10, 455, ())


def test_each_cluster_of_ild_belongs_to_the_particle_of_its_heaviest_link(ild):
    sample = read_sample(ild)
    with uproot.open(ild) as file:
        tree = file["events"]
        link = "ClusterMCTruthLink"
        weight = tree[f"{link}/{link}.weight"].array()[0]
        cluster, particle = (
            tree[f"_{link}_{end}/_{link}_{end}.index"].array()[0] for end in ("from", "to")
        )
        ids = tree[f"_{link}_from/_{link}_from.collectionID"].array()[0]
        pdg_id = tree["MCParticles/MCParticles.PDG"].array()[0]
    for number in range(10):
        mine = np.flatnonzero((cluster == number) & (ids == 450524680))
        best = mine[np.argmax(weight[mine])]
        assert sample["truthPdgId"][number] == pdg_id[particle[best]]
    ratio = sample["clusterE"] / sample["truthE"]
    photons = sample["truthPdgId"] == 22
    assert np.median(ratio[photons]) == pytest.approx(1.0, abs=0.1)


def test_chunks_are_those_of_the_whole(ild):
    whole, parts = read_sample(ild), list(iterate_sample(ild, step=100))
    assert len(parts) > 3
    for name in whole.scalars:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("name", ["edm4hep_0_99_2", "edm4hep_1_1"])
def test_older_and_newer_releases_are_read_alike(name):
    sample = read_sample(real_file(name))
    assert sample["clusterE"].tolist() == [43.0] * 3
    assert sample["truthPdgId"].tolist() == [42] * 3


def test_another_collection_is_read_where_it_is_named_and_refused_where_it_is_not_there(ild):
    with LAYOUT.open(ild, container="LumiCalClusters") as reader:
        assert reader.metadata["container"] == "LumiCalClusters"
        reader.read(0, 10)
    with (
        pytest.raises(BadFileError, match="events has no clusters Tracks; it has LumiCalClusters"),
        LAYOUT.open(ild, container="Tracks"),
    ):
        pass
