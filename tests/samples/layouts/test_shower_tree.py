"""Files of single showers are read as showers, and are marked as such."""

import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.samples.layouts.recognise import open_reader, recognise
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.read import read_sample
from pfcalib.samples.showerfile import Showers, read_showers, write_showers

PIONS = packaged_sample("geant4_pions")


def test_the_packaged_showers_are_read_with_all_their_cells():
    showers, metadata = read_showers(PIONS, WINDOW)
    read = read_sample(PIONS)
    np.testing.assert_array_equal(read.offsets, showers.offsets)
    np.testing.assert_array_equal(read.cells["cluster_cell_ID"], showers.cell)
    np.testing.assert_array_equal(read.cells["cluster_cell_E"], showers.signal.astype(np.float32))
    np.testing.assert_array_equal(read["truthPdgId"], showers.pdg_id)
    np.testing.assert_array_equal(read["truthE"], showers.e_true.astype(np.float32))
    total = np.add.reduceat(showers.signal, showers.offsets[:-1])
    full = np.diff(showers.offsets) > 0
    np.testing.assert_allclose(read["clusterE"][full], total[full], rtol=1e-6)
    assert metadata.items() <= read.metadata.items()


def test_they_are_marked_as_showers():
    assert recognise(PIONS).name == "showers"
    with open_reader(PIONS) as reader:
        assert reader.unit == "shower"
        assert "not a cluster" in reader.metadata["unit"]
        assert reader.read(0, 0).scalars.keys() == reader.read(5, 7).scalars.keys()
    assert not {"clusterIndex", "nCluster", "clusterEta"} & set(
        read_sample(PIONS, entry_stop=2).scalars
    )


def test_columns_and_entries_can_be_chosen():
    part, whole = (
        read_sample(PIONS, columns=["truthE", "cluster_cell_E"], entry_start=3, entry_stop=8),
        read_sample(PIONS),
    )
    assert set(part.scalars) == {"truthE"}
    np.testing.assert_array_equal(part["truthE"], whole["truthE"][3:8])
    np.testing.assert_array_equal(part.cells["cluster_cell_E"], whole[3:8].cells["cluster_cell_E"])
    np.testing.assert_array_equal(
        read_sample(PIONS, columns=["eventNumber"], entry_start=3, entry_stop=8)["eventNumber"],
        np.arange(3, 8),
    )


def test_a_shower_without_hits_is_kept(tmp_path):
    showers = Showers(
        np.full(2, 211, np.int32),
        np.ones(2),
        np.zeros(2),
        np.zeros(2),
        np.array([0, 0, 2]),
        np.array([3, 5], np.int32),
        np.ones(2),
    )
    write_showers(tmp_path / "empty.root", showers, WINDOW, {})
    read = read_sample(tmp_path / "empty.root")
    assert read["clusterE"].tolist() == pytest.approx([0.0, 2.0])
    assert read["cluster_nCells"].tolist() == [0, 2]
