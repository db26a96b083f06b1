"""Files are written in chunks, complete or not at all, with exactly the branches of the schema."""

import dataclasses

import numpy as np
import pytest
import uproot

from pfcalib.columns import CELL_GEO, JAGGED, SCALARS
from pfcalib.errors import ValidationError
from pfcalib.samples.read import read_sample
from pfcalib.samples.rootfile import content_id
from pfcalib.samples.write import SampleWriter, write_sample


def test_branches_have_the_published_names_and_one_common_counter(path):
    with uproot.open(path) as file:
        assert set(file["ClusterTree"].keys()) == {*SCALARS, *JAGGED, "ncluster_cell"}
        assert set(file["CellGeo"].keys()) == {*CELL_GEO, "ncell_geo"}
        assert file["CellGeo"].num_entries == 1
        assert file.file.compression.name == "ZSTD"


def test_chunks_of_any_size_make_the_same_sample(sample, tmp_path):
    with SampleWriter(tmp_path / "chunks.root", sample.geo, sample.metadata, chunk=50) as writer:
        for first, last in ((0, 0), (0, 1), (1, 30), (30, 200), (200, 300)):
            part = sample[first:last]
            writer.extend(part.scalars, part.offsets, part.cells)
    assert writer.n_clusters == len(sample)
    back = read_sample(tmp_path / "chunks.root")
    np.testing.assert_array_equal(back.offsets, sample.offsets)
    for name in JAGGED:
        np.testing.assert_array_equal(back.cells[name], sample.cells[name])


def test_a_sample_without_clusters_is_still_a_sample(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    back = read_sample(tmp_path / "empty.root")
    assert len(back) == 0
    assert back.metadata == sample.metadata


def test_nothing_is_left_of_a_file_that_failed_and_an_older_one_survives(sample, path):
    before = path.read_bytes()

    def interrupted():
        with SampleWriter(path, sample.geo, {}) as writer:
            writer.extend(sample.scalars, sample.offsets, sample.cells)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_has_its_name_only_at_the_end(sample, tmp_path):
    with SampleWriter(tmp_path / "late.root", sample.geo, {}) as writer:
        writer.extend(sample.scalars, sample.offsets, sample.cells)
        assert not (tmp_path / "late.root").exists()
    assert (tmp_path / "late.root").exists()


def changed(arrays, name, value):
    return arrays | {name: np.where(np.arange(len(arrays[name])) == 3, value, arrays[name])}


def test_values_that_cannot_be_read_back_are_not_written(sample, tmp_path):
    cases = {
        r"clusterE\[3\]": dataclasses.replace(
            sample, scalars=changed(sample.scalars, "clusterE", np.nan)
        ),
        r"cluster_cell_E\[3\]": dataclasses.replace(
            sample, cells=changed(sample.cells, "cluster_cell_E", np.inf)
        ),
        "is 5000, it must be in CellGeo": dataclasses.replace(
            sample, cells=changed(sample.cells, "cluster_cell_ID", 5000)
        ),
        "offsets": dataclasses.replace(sample, offsets=sample.offsets[::-1].copy()),
        r"must have shape \(300,\)": dataclasses.replace(
            sample, scalars=sample.scalars | {"clusterE": np.zeros(5)}
        ),
    }
    for message, bad in cases.items():
        with pytest.raises(ValidationError, match=message):
            write_sample(tmp_path / "bad.root", bad)
        assert list(tmp_path.iterdir()) == []


def test_missing_and_unknown_columns_are_named(sample, tmp_path):
    with (
        pytest.raises(ValidationError, match="truthE"),
        SampleWriter(tmp_path / "a.root", sample.geo, {}) as writer,
    ):
        writer.extend(
            {name: array for name, array in sample.scalars.items() if name != "truthE"},
            sample.offsets,
            sample.cells,
        )
    with pytest.raises(ValidationError, match="colour"):
        SampleWriter(tmp_path / "a.root", sample.geo, {}, columns=["colour"])


def test_the_content_of_a_file_is_its_columns_whatever_its_name_and_chunks(tmp_path, sample):
    for name, chunk in (("first", 1000), ("second", 7)):
        write_sample(tmp_path / f"{name}.root", sample, chunk=chunk)
    assert content_id(tmp_path / "first.root") == content_id(tmp_path / "second.root")


def test_one_other_value_is_another_content(tmp_path, sample):
    write_sample(tmp_path / "first.root", sample)
    sample.scalars["clusterE"][3] += 0.5
    write_sample(tmp_path / "second.root", sample)
    assert (tmp_path / "first.root").stat().st_size == pytest.approx(
        (tmp_path / "second.root").stat().st_size, abs=64
    )
    assert content_id(tmp_path / "first.root") != content_id(tmp_path / "second.root")


def test_a_file_without_a_content_of_its_own_is_told_by_its_bytes(tmp_path):
    for name, text in (("first", "a"), ("second", "b"), ("third", "a")):
        (tmp_path / f"{name}.h5").write_text(text)
    contents = [content_id(tmp_path / f"{name}.h5") for name in ("first", "second", "third")]
    assert contents[0] == contents[2] != contents[1]
