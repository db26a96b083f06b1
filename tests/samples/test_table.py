"""One table of clusters: keys, split, cuts, cells, and columns that stay aligned."""

import awkward as ak
import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.select import SelectionConfig, choose_clusters
from pfcalib.samples.table import KEYS, read_table
from pfcalib.samples.write import write_sample

SELECT = SelectionConfig(min_cluster_e=1.0, min_deposit=0.5, species="charged")


def test_a_table_holds_every_scalar_of_the_file_bit_by_bit(sample, path):
    clusters = read_table(path)
    assert set(clusters.fields) == {*sample.scalars, *KEYS, "is_em"}
    for name, values in sample.scalars.items():
        assert np.asarray(clusters[name]).dtype == values.dtype
        np.testing.assert_array_equal(clusters[name], values)
    np.testing.assert_array_equal(clusters["cluster"], np.arange(len(sample)))
    np.testing.assert_array_equal(clusters["is_em"], sample.is_em)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("step", [7, 1000])
def test_split_and_cuts_are_those_of_the_networks(sample, path, split, step):
    clusters = read_table(path, columns=["clusterPhi"], split=split, select=SELECT, step=step)
    rows = choose_clusters(sample.scalars, split=split, select=SELECT).rows
    assert len(rows) > 0
    np.testing.assert_array_equal(clusters["cluster"], rows)
    np.testing.assert_array_equal(clusters["clusterPhi"], sample["clusterPhi"][rows])


def test_events_of_two_files_that_count_from_one_are_told_apart(rng, path, sample, tmp_path):
    other = make_sample(rng, 50)
    write_sample(tmp_path / "other.root", other)
    clusters = read_table([path, tmp_path / "other.root"], columns=["clusterE"])
    assert ak.num(clusters, axis=0) == len(sample) + 50
    second = clusters[clusters["sample"] == 1]
    np.testing.assert_array_equal(second["event"], other["eventNumber"])
    np.testing.assert_array_equal(second["cluster"], np.arange(50))


def test_cells_and_new_columns_stay_with_their_clusters(sample, path):
    clusters = read_table(path, columns=["cluster_cell_E", "clusterE"], select=SELECT, step=11)
    clusters["e_lcw"] = 2.0 * clusters["clusterE"]
    few = clusters[clusters["e_lcw"] > 5.0]
    np.testing.assert_array_equal(few["e_lcw"], 2.0 * few["clusterE"])
    for cells, cluster in zip(few["cluster_cell_E"], few["cluster"], strict=True):
        start, stop = sample.offsets[cluster : cluster + 2]
        np.testing.assert_array_equal(cells, sample.cells["cluster_cell_E"][start:stop])


def test_no_cluster_that_passes_gives_an_empty_table_with_all_columns(path):
    nothing = SelectionConfig(min_cluster_e=1e6)
    assert read_table(path, columns=["clusterE"], select=nothing)["clusterE"].tolist() == []


def test_a_file_without_clusters_gives_an_empty_table(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    assert len(read_table(tmp_path / "empty.root")) == 0


def test_what_there_is_not_is_refused(path):
    with pytest.raises(BadFileError, match="no such columns in pfcalib: clusterEnergy"):
        read_table(path, columns=["clusterEnergy"])
    with pytest.raises(ConfigError, match="split must be one of"):
        read_table(path, split="half")
