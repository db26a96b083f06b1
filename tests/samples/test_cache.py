"""The memory maps hold what the file holds, follow its content, and survive two builders at once."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import BadFileError
from pfcalib.geometry import BARREL
from pfcalib.samples.cache import open_cache
from pfcalib.samples.write import write_sample


def folders(path):
    return [entry.name for entry in (path.parent / ".pfcalib_cache").iterdir() if entry.is_dir()]


def test_the_maps_hold_the_sample(sample, path):
    cache = open_cache(path)
    np.testing.assert_array_equal(cache.offsets, sample.offsets)
    np.testing.assert_array_equal(cache.cell, sample.cells["cluster_cell_ID"])
    np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])
    for name, array in sample.scalars.items():
        np.testing.assert_array_equal(cache.scalars[name], array)
    assert cache.geo.same_as(sample.geo)
    assert cache.n_clusters == len(sample)


def test_cells_take_sixteen_bits_and_stay_on_disk(rng, tmp_path):
    write_sample(tmp_path / "barrel.root", make_sample(rng, 20, BARREL))
    cache = open_cache(tmp_path / "barrel.root")
    assert cache.cell.dtype == np.uint16
    assert all(isinstance(array, np.memmap) for array in (cache.cell, cache.energy, cache.offsets, cache.scalars["clusterE"]))


def test_it_is_built_once_and_shared_by_copies_of_the_same_content(path, monkeypatch):
    open_cache(path)
    monkeypatch.setattr("pfcalib.samples.cache.iterate_sample", None)
    shutil.copy2(path, path.with_name("sample.copy"))
    open_cache(path)
    assert len(folders(path)) == 1


def test_a_file_of_new_content_is_never_served_from_the_old_maps(sample, path):
    open_cache(path)
    write_sample(path, sample[:100])
    assert open_cache(path).n_clusters == 100
    assert len(folders(path)) == 2


def test_builders_at_the_same_time_end_with_one_whole_cache(sample, path, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_cache(path, cache_dir=tmp_path / "maps"), range(4)))
    assert len(list((tmp_path / "maps").iterdir())) == 1
    for cache in caches:
        np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])


def test_a_bad_file_leaves_no_cache_behind(sample, path):
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadFileError, match="cannot be read"):
        open_cache(path)
    assert folders(path) == []
    with pytest.raises(BadFileError, match="no such file"):
        open_cache(path.with_name("gone.root"))


def test_an_empty_sample_has_an_empty_cache(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    assert open_cache(tmp_path / "empty.root").n_clusters == 0


def test_a_folder_that_cannot_be_written_is_left_alone(path, tmp_path, monkeypatch):
    monkeypatch.setattr("pfcalib.samples.cache.os.access", lambda *arguments: False)
    monkeypatch.setattr("pfcalib.samples.cache.tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    open_cache(path, cache_dir=None)
    assert not (path.parent / ".pfcalib_cache").exists()
