"""Clusters of real ATLAS files, and of one with EM scale and moments that ROOT writes, come in GeV
and with the layers that they have.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import awkward as ak
import numpy as np
import pytest
import uproot
from samples.real_atlas import real_file
from samples.real_root import write_files

from pfcalib.errors import BadFileError
from pfcalib.samples.faults import FaultLog
from pfcalib.samples.layouts.physlite import LAYOUT
from pfcalib.samples.layouts.recognise import recognise
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.samples.schema import Sample

BARREL = {
    0: "PreSamplerB",
    1: "EMB1",
    2: "EMB2",
    3: "EMB3",
    12: "TileBar0",
    13: "TileBar1",
    14: "TileBar2",
}
N_CLUSTERS = {"physlite": 426, "physlite_ttbar": 305, "exot": 306}
# container, variable: type, values of three events, the second one without clusters; MeV
EVENTS = {
    "EventInfoAuxDyn.eventNumber": ("L", [11, 12, 13]),
    "CaloCalTopoClustersAuxDyn.rawE": ("vector<float>", [[2000.0, 5000.0], [], [-300.0]]),
    "CaloCalTopoClustersAuxDyn.rawEta": ("vector<float>", [[0.5, -1.5], [], [0.0]]),
    "CaloCalTopoClustersAuxDyn.rawPhi": ("vector<float>", [[3.1, -3.1], [], [0.0]]),
    "CaloCalTopoClustersAuxDyn.calE": ("vector<float>", [[2500.0, 5500.0], [], [-300.0]]),
    "CaloCalTopoClustersAuxDyn.calEta": ("vector<float>", [[0.6, -1.6], [], [0.1]]),
    "CaloCalTopoClustersAuxDyn.calPhi": ("vector<float>", [[3.0, -3.0], [], [0.1]]),
    "CaloCalTopoClustersAuxDyn.e_sampl": (
        "vector<vector<float>>",
        [[[2000.0], [4000.0, 1000.0]], [], [[-300.0]]],
    ),
    "CaloCalTopoClustersAuxDyn.CENTER_MAG": ("vector<float>", [[1600.0, 3000.0], [], [1500.0]]),
    "CaloCalTopoClustersAuxDyn.FIRST_ENG_DENS": ("vector<float>", [[0.01, 0.5], [], [0.0]]),
    "CaloCalTopoClustersAuxDyn.ENG_POS": ("vector<float>", [[2100.0, 5100.0], [], [0.0]]),
    "CaloCalTopoClustersAuxDyn.EM_PROBABILITY": ("vector<float>", [[0.9, 0.1], [], [0.5]]),
    "AnotherClustersAuxDyn.calE": ("vector<float>", [[1000.0], [], []]),
}


class Real(NamedTuple):
    """A real file: what is read of it, and what uproot sees in it."""

    name: str
    sample: Sample
    arrays: ak.Array
    patterns: list[int]


@pytest.fixture(scope="module", params=N_CLUSTERS)
def real(request):
    path = real_file(request.param)
    with uproot.open(path) as file:
        tree = file["CollectionTree"]
        number = (
            "EventInfoAux./EventInfoAux.eventNumber"
            if request.param == "exot"
            else "EventInfoAuxDyn.eventNumber"
        )
        names = {
            "calE": "egammaClustersAuxDyn.calE",
            "calEta": "egammaClustersAuxDyn.calEta",
            "calPhi": "egammaClustersAuxDyn.calPhi",
        }
        names |= {"e_sampl": "egammaClustersAuxDyn.e_sampl", "eventNumber": number}
        arrays = ak.Array({name: tree[branch].array() for name, branch in names.items()})
        return Real(
            request.param, read_sample(path), arrays, list(slow_patterns(tree["egammaClusters"]))
        )


def slow_patterns(branch):
    """samplingPattern of all clusters, from the bytes: 16 of a header with the number of clusters
    at its end, then 4 each.
    """
    for i in range(branch.num_baskets):
        basket = branch.basket(i)
        for start in basket.byte_offsets[:-1]:
            (n,) = struct.unpack(">I", basket.data[start + 12 : start + 16].tobytes())
            yield from struct.unpack(
                f">{n}I", basket.data[start + 16 : start + 16 + 4 * n].tobytes()
            )


@pytest.fixture(scope="module")
def topo(tmp_path_factory):
    """A file with the EM scale and moments, and one without event numbers of which vectors do not
    agree.
    """
    folder = tmp_path_factory.mktemp("topo")
    bad = {**EVENTS, "CaloCalTopoClustersAuxDyn.rawEta": ("vector<float>", [[0.5, -1.5], [], []])}
    del bad["EventInfoAuxDyn.eventNumber"]
    write_files(
        {
            folder / "aod.root": {"CollectionTree": EVENTS},
            folder / "bad.root": {"CollectionTree": bad},
        }
    )
    return folder / "aod.root"


def test_energies_and_directions_are_those_of_the_file(real):
    sample = real.sample
    assert len(sample) == N_CLUSTERS[real.name]
    assert sample["clusterE"] == pytest.approx(ak.to_numpy(ak.flatten(real.arrays["calE"])) / 1e3)
    assert sample["clusterEta"].tolist() == ak.flatten(real.arrays["calEta"]).to_list()
    assert sample["clusterPhi"].tolist() == ak.flatten(real.arrays["calPhi"]).to_list()
    assert sample["clusterPt"] == pytest.approx(
        sample["clusterE"] / np.cosh(sample["clusterEta"]), rel=1e-5
    )
    assert 1.0 < np.median(sample["clusterE"]) < 100.0
    assert sample.offsets.tolist() == [0] * (len(sample) + 1)
    assert len(sample.geo) == 0


def test_events_keep_their_numbers(real):
    sample, counts = real.sample, ak.to_numpy(ak.num(real.arrays["calE"]))
    assert (
        sample["eventNumber"].tolist()
        == np.repeat(ak.to_numpy(real.arrays["eventNumber"]), counts).tolist()
    )
    assert sample["nCluster"].tolist() == np.repeat(counts, counts).tolist()
    for first, n in zip(np.cumsum(counts) - counts, counts, strict=True):
        event = slice(first, first + n)
        assert (
            np.argsort(sample["clusterIndex"][event]).tolist()
            == np.argsort(-sample["clusterE"][event], kind="stable").tolist()
        )


def test_every_mev_of_a_layer_is_found_by_its_bit(real):
    energies = ak.flatten(real.arrays["e_sampl"]).to_list()
    elsewhere: dict[int, int] = {}
    for i, (pattern, energy) in enumerate(zip(real.patterns, energies, strict=True)):
        bits = [bit for bit in range(32) if pattern >> bit & 1]
        known = dict(zip(bits, energy, strict=True))
        for bit, layer in BARREL.items():
            assert real.sample[f"cluster_E_{layer}"][i] == pytest.approx(known.get(bit, 0.0) / 1e3)
        for bit in known.keys() - BARREL.keys():
            elsewhere[bit] = elsewhere.get(bit, 0) + 1
    reported = real.sample.metadata["samplings_without_column"]
    assert list(reported.values()) == [elsewhere[bit] for bit in sorted(elsewhere)]
    assert list(reported)[:2] == ["PreSamplerE", "EME1"]


def test_clusters_of_the_barrel_have_their_energy_in_its_layers(real):
    energy, eta = real.sample["clusterE"], np.abs(real.sample["clusterEta"])
    layers = sum(real.sample[f"cluster_E_{layer}"] for layer in BARREL.values())
    assert (layers[eta < 1.3] / energy[eta < 1.3] > 0.3).all()
    assert np.median(layers[eta < 1.3] / energy[eta < 1.3]) == pytest.approx(0.9, abs=0.06)
    assert (layers[eta > 1.6] == 0.0).all()


def test_a_file_without_the_em_scale_says_so(real):
    assert real.sample.metadata["energy_scale"] == "calibrated (calE): the file has no rawE"
    assert real.sample.metadata["container"] == "egammaClusters"


def test_branches_found_and_missing_are_listed():
    with LAYOUT.open(real_file("exot")) as reader:
        assert reader.found == (
            "eventNumber",
            "calE",
            "calEta",
            "calPhi",
            "e_sampl",
            "samplingPattern",
        )
        assert {"rawE", "rawEta", "rawPhi", "CENTER_MAG"} <= set(reader.missing)


def test_chunks_add_up_to_the_whole():
    path = real_file("exot")
    whole, chunks = read_sample(path), list(iterate_sample(path, step=100))
    assert [len(chunk) for chunk in chunks] == [80, 90, 107, 29]
    for name in whole.scalars:
        assert np.array_equal(np.concatenate([chunk[name] for chunk in chunks]), whole[name])


def test_columns_can_be_chosen():
    path = real_file("exot")
    some = read_sample(path, columns=["clusterE", "eventNumber"], entry_start=2, entry_stop=5)
    assert set(some.scalars) == {"clusterE", "eventNumber"}
    assert len(some) == 22 + 27 + 19
    with pytest.raises(
        BadFileError, match=r"CollectionTree has no branch truthE \(layout PHYSLITE\)"
    ):
        read_sample(path, columns=["truthE"])


@pytest.mark.parametrize("name", ["jets_r21", "jets_r22"])
def test_a_file_without_clusters_is_refused_with_what_it_has(name):
    assert recognise(real_file(name)).name == "PHYSLITE"
    with pytest.raises(BadFileError, match=r"no calorimeter clusters .*AntiKt4EMTopoJets"):
        read_sample(real_file(name))


def test_the_em_scale_and_moments_are_read_where_there_are_any(topo):
    sample = read_sample(topo)
    assert sample.metadata["container"] == "CaloCalTopoClusters"
    assert sample.metadata["energy_scale"] == "EM (rawE)"
    expected = {
        "clusterE": [2.0, 5.0, -0.3],
        "clusterECalib": [2.5, 5.5, -0.3],
        "clusterEta": [0.5, -1.5, 0.0],
        "clusterPhi": [3.1, -3.1, 0.0],
        "cluster_CENTER_MAG": [1600.0, 3000.0, 1500.0],
        "cluster_FIRST_ENG_DENS": [1e-5, 5e-4, 0.0],
        "cluster_ENG_POS": [2.1, 5.1, 0.0],
        "cluster_EM_PROBABILITY": [0.9, 0.1, 0.5],
        "eventNumber": [11, 11, 13],
        "clusterIndex": [1, 0, 0],
        "nCluster": [2, 2, 1],
    }
    for name, values in expected.items():
        assert sample[name].tolist() == pytest.approx(values, rel=1e-6), name


def test_layers_without_their_pattern_are_left_out_and_named(topo):
    with LAYOUT.open(topo) as reader:
        assert "samplingPattern" in reader.missing
        assert reader.metadata["samplings_without_column"] == "unknown"
        assert not [name for name in reader.read(0, 3).scalars if name.startswith("cluster_E_")]


def test_the_container_can_be_chosen(topo):
    with LAYOUT.open(topo, container="AnotherClusters") as reader:
        assert reader.read(0, 3)["clusterE"].tolist() == [1.0]
        assert "eventNumber" in reader.found
    with (
        pytest.raises(
            BadFileError, match="no clusters 'None'; it has CaloCalTopoClusters, AnotherClusters"
        ),
        LAYOUT.open(topo, container="None"),
    ):
        pass


def test_vectors_that_disagree_name_their_entry(topo):
    path = topo.with_name("bad.root")
    with pytest.raises(
        BadFileError,
        match=r"entry 2: CaloCalTopoClusters: rawEta does not have the same length",
    ):
        read_sample(path)
    log = FaultLog()
    assert read_sample(path, on_error="skip", faults=log)["eventNumber"].tolist() == [0, 0]
    assert [(fault.entry, fault.n_lost) for fault in log] == [(2, 1)]
