"""CaloChallenge files, written by h5py, are read with every MeV of every voxel where the format
says that it lies.
"""

from __future__ import annotations

import math
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.images import ImageWindow
from pfcalib.geometry import BARREL
from pfcalib.samples.layouts import calochallenge
from pfcalib.samples.layouts.calochallenge import (
    PHOTONS,
    PIONS,
    Binning,
    VoxelLayer,
    open_showers,
    read_binning,
    voxel_cells,
)
from pfcalib.samples.read import iterate_sample, read_sample

SMALL_XML = """<Bins>
  <Bin pid="22" etaMin="0" etaMax="130" name="photon">
    <Layer id="1" r_edges="0,2,6" n_bin_alpha="4"/>
    <Layer id="4" r_edges="0" n_bin_alpha="1"/>
    <Layer id="12" r_edges="0,100,200.5" n_bin_alpha="1"/>
  </Bin>
</Bins>
"""


def write_showers(path: Path, energies, showers) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "incident_energies", data=np.asarray(energies).reshape(-1, 1), compression="gzip"
        )
        file.create_dataset("showers", data=showers, compression="gzip")
    return path


def make_showers(rng, binning, n=40):
    """Showers of which a third of the voxels has energy, and the last one has none."""
    showers = rng.exponential(50.0, (n, binning.n_voxels)) * (
        rng.random((n, binning.n_voxels)) < 0.3
    )
    showers[-1] = 0.0
    return 2.0 ** rng.integers(8, 23, n), showers


@pytest.fixture(params=[PHOTONS, PIONS], ids=lambda binning: binning.name)
def binning(request):
    return request.param


@pytest.fixture
def arrays(rng, binning):
    return make_showers(rng, binning)


@pytest.fixture
def path(arrays, tmp_path):
    return write_showers(tmp_path / "dataset_1.hdf5", *arrays)


def slow_voxels(binning):
    """Where the challenge's XMLHandler puts its voxels: sampling and centre in mm, one after the
    other.
    """
    for layer in binning.layers:
        for j in range(layer.n_alpha):
            for low, high in zip(layer.r_edges[:-1], layer.r_edges[1:], strict=True):
                alpha = -math.pi + 2.0 * math.pi * (j + 0.5) / layer.n_alpha
                yield (
                    layer.sampling,
                    (low + high) / 2.0 * math.cos(alpha),
                    (low + high) / 2.0 * math.sin(alpha),
                )


def test_voxels_lie_where_the_format_says(binning):
    geo = voxel_cells(binning)
    voxels = list(slow_voxels(binning))
    assert len(geo) == len(voxels)
    for i, (sampling, x, y) in enumerate(voxels):
        radius = next(layer.r for layer in BARREL.layers if layer.sampling == sampling)
        assert (geo.ID[i], geo.sampling[i]) == (i, sampling)
        assert geo.rPerp[i] == pytest.approx(radius)
        assert (geo.eta[i], geo.phi[i]) == pytest.approx(
            (x / radius, y / radius), rel=1e-6, abs=1e-7
        )


def test_voxels_fill_the_cylinders(binning):
    geo = voxel_cells(binning)
    for layer in binning.layers:
        barrel = next(this for this in BARREL.layers if this.sampling == layer.sampling)
        area = math.pi * layer.r_edges[-1] ** 2
        here = geo.sampling == layer.sampling
        assert geo.volume[here].sum(dtype=np.float64) == pytest.approx(
            area * (barrel.r_out - barrel.r_in), rel=1e-6
        )
        assert (geo.deta[here] * geo.dphi[here]).sum(dtype=np.float64) == pytest.approx(
            area / barrel.r**2, rel=1e-6
        )


def test_every_mev_is_read(path, arrays, binning):
    energies, showers = arrays
    sample = read_sample(path)
    assert sample["truthE"] == pytest.approx(energies / 1e3)
    assert set(sample["truthPdgId"]) == {binning.pdg_id}
    assert sample["clusterE"] == pytest.approx(showers.sum(axis=1) / 1e3)
    assert sample["eventNumber"].tolist() == list(range(len(showers)))
    back = np.zeros(showers.shape)
    owner = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    back[owner, sample.cells["cluster_cell_ID"]] = sample.cells["cluster_cell_E"]
    assert back == pytest.approx(showers / 1e3, rel=1e-6)
    assert (sample.cells["cluster_cell_E"] > 0).all()
    assert sample["cluster_nCells"].tolist() == np.count_nonzero(showers, axis=1).tolist()


def test_layers_add_up_to_the_cluster(path, arrays, binning):
    sample = read_sample(path)
    names = [name for name in sample.scalars if name.startswith("cluster_E_")]
    assert len(names) == len(binning.layers)
    assert sum(sample[name].astype(np.float64) for name in names) == pytest.approx(
        sample["clusterE"], rel=1e-6
    )
    emb1 = [sampling == 1 for sampling, _, _ in slow_voxels(binning)]
    assert sample["cluster_E_EMB1"] == pytest.approx(arrays[1][:, emb1].sum(axis=1) / 1e3, rel=1e-6)


def test_chunks_add_up_to_the_whole(path):
    whole, chunks = read_sample(path), list(iterate_sample(path, step=7))
    assert [len(chunk) for chunk in chunks] == [7, 7, 7, 7, 7, 5]
    assert np.array_equal(
        np.concatenate([chunk.cells["cluster_cell_E"] for chunk in chunks]),
        whole.cells["cluster_cell_E"],
    )
    assert len(read_sample(path, entry_start=3, entry_stop=3)) == 0


def test_images_are_centred_on_the_axis_of_the_particle():
    sample_axis = ImageWindow(voxel_cells(PHOTONS)).central_cell(np.zeros(1), np.zeros(1))
    assert np.hypot(
        voxel_cells(PHOTONS).eta[sample_axis], voxel_cells(PHOTONS).phi[sample_axis]
    ) == pytest.approx(1.0 / BARREL.layers[2].r, rel=1e-6)


def test_an_xml_is_read_layer_by_layer(tmp_path):
    (tmp_path / "b.xml").write_text(SMALL_XML)
    binning = read_binning(tmp_path / "b.xml")
    assert binning.layers == (
        VoxelLayer(1, (0.0, 2.0, 6.0), 4),
        VoxelLayer(12, (0.0, 100.0, 200.5), 1),
    )
    assert (binning.pdg_id, binning.n_voxels, binning.starts) == (22, 10, [0, 8])


def test_the_xml_of_the_same_name_wins(tmp_path, rng):
    path = write_showers(tmp_path / "mine.hdf5", [1e3, 2e3], rng.random((2, 10)))
    with pytest.raises(BadFileError, match=r"10 voxels, known are 368 \(photons\), 533 \(pions\)"):
        read_sample(path)
    path.with_suffix(".xml").write_text(SMALL_XML)
    assert read_sample(path).metadata["binning"] == "mine.xml"


def test_a_binning_beside_the_file_is_found_by_its_voxels(tmp_path, rng):
    path = write_showers(tmp_path / "mine.hdf5", [1e3], rng.random((1, 10)))
    (tmp_path / "binning_a.xml").write_text(SMALL_XML)
    (tmp_path / "binning_b.xml").write_text(SMALL_XML.replace("200.5", "200.5,300"))
    assert read_sample(path).metadata["binning"] == "binning_a.xml"
    (tmp_path / "binning_c.xml").write_text(SMALL_XML.replace("200.5", "200"))
    with pytest.raises(BadFileError, match=r"binning_a.xml and binning_c.xml fit its 10 voxels"):
        read_sample(path)


def test_a_binning_given_by_the_user_wins(tmp_path, rng):
    path = write_showers(tmp_path / "mine.hdf5", [1e3], rng.random((1, 10)))
    path.with_suffix(".xml").write_text(SMALL_XML)
    mine = Binning("mine", 11, (VoxelLayer(2, tuple(range(11)), 1),))
    with open_showers(path, binning=mine) as reader:
        assert set(reader.geo.sampling) == {2}
        assert reader.read(0, 1)["truthPdgId"].tolist() == [11]
    with (
        pytest.raises(BadFileError, match="10 voxels, binning photons has 368"),
        open_showers(path, binning=PHOTONS),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<Bins>", "<Bins"), "no readable XML"),
        (('name="photon">', 'name="photon"/><Bin>'), "with 2"),
        (("</Bins>", "</Bins>x"), "no readable XML"),
        (('pid="22" ', ""), None),
        (('pid="22" etaMin="0" etaMax="130" name="photon"', 'name="muon"'), "has no 'muon'"),
        (('r_edges="0,2,6"', 'r_edges="0,6,2"'), "must rise"),
        (('r_edges="0,2,6"', 'r_edges="0,2,six"'), "six"),
        (('r_edges="0,2,6"', ""), "has no 'r_edges'"),
        (('n_bin_alpha="4"', 'n_bin_alpha="0"'), "at least 1"),
        (('id="12"', 'id="5"'), "layer 5 is no layer of the barrel"),
        (('id="12"', 'id="1"'), "different layers"),
    ],
)
def test_a_binning_that_makes_no_sense_is_refused(tmp_path, change, message):
    (tmp_path / "b.xml").write_text(SMALL_XML.replace(*change))
    if message is None:
        assert read_binning(tmp_path / "b.xml").pdg_id == 22
        return
    with pytest.raises(BadFileError, match=rf"b\.xml: .*{message}"):
        read_binning(tmp_path / "b.xml")


def test_a_binning_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(BadFileError, match="No such file"):
        read_binning(tmp_path / "none.xml")


def test_a_layer_outside_the_barrel_is_refused():
    with pytest.raises(ConfigError, match="layer 21"):
        VoxelLayer(21, (0.0, 1.0), 1)


@pytest.mark.parametrize("name", ["incident_energies", "showers"])
def test_a_missing_data_set_is_named(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
    with pytest.raises(BadFileError, match=f"no data set '{name}'; the file has"):
        read_sample(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("showers", np.zeros((40, 100)), "100 voxels"),
        ("showers", np.zeros(40), "expected rows of numbers"),
        ("showers", np.full((40, 368), b"x"), "expected rows of numbers"),
        ("incident_energies", np.ones((39, 1)), r"shape \(39, 1\), expected \(40, 1\)"),
        ("incident_energies", np.ones(40), "expected rows of numbers"),
    ],
)
def test_a_data_set_of_the_wrong_kind_is_refused(path, name, data, message):
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = data
    with pytest.raises(BadFileError, match=message):
        read_sample(path)


def test_a_group_instead_of_a_data_set_is_refused(path):
    with h5py.File(path, "a") as file:
        del file["showers"]
        file.create_group("showers")
    with pytest.raises(BadFileError, match="no data set 'showers'"):
        read_sample(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("showers", np.nan, "entry 5: cluster.* is nan"),
        ("showers", np.inf, "entry 5: cluster.* is inf"),
        ("showers", -3.0, r"entry 5: voxel 2 is -3.0 MeV, it must not be negative"),
        ("incident_energies", -1.0, "entry 5: truthE is -0.001"),
        ("incident_energies", np.nan, "entry 5: truthE is nan"),
    ],
)
def test_a_bad_value_is_named_and_can_be_skipped(path, name, value, message):
    with h5py.File(path, "a") as file:
        file[name][5, min(2, file[name].shape[1] - 1)] = value
    with pytest.raises(BadFileError, match=message):
        read_sample(path)
    with pytest.warns(UserWarning, match="1 faults were skipped, with 1 clusters"):
        left = read_sample(path, on_error="skip")
    assert left["eventNumber"].tolist() == [i for i in range(40) if i != 5]


@pytest.mark.parametrize("share", [0.0003, 0.3, 0.99])
def test_a_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: max(9, int(share * len(whole)))])
    with pytest.raises(BadFileError, match="not a readable HDF5 file"):
        read_sample(path)


def test_flipped_bytes_in_a_chunk_are_noticed(path):
    with h5py.File(path) as file:
        chunk = file["showers"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    data[middle : middle + 8] = bytes(255 - byte for byte in data[middle : middle + 8])
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=r"showers: rows 0 to 40 cannot be read"):
        read_sample(path)


def test_a_url_is_read_too(path):
    fsspec.filesystem("memory").pipe("/calo/a.hdf5", path.read_bytes())
    assert np.array_equal(
        read_sample("memory://calo/a.hdf5")["clusterE"], read_sample(path)["clusterE"]
    )


def test_only_hdf5_is_taken_for_it(path, tmp_path):
    (tmp_path / "other").write_bytes(b"root")
    assert calochallenge.LAYOUT.matches(path)
    assert not calochallenge.LAYOUT.matches(tmp_path / "other")
