"""The memory maps hold what the file holds, follow its content, notice damage, and survive builders
at the same time.
"""

import json
import multiprocessing
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import BadFileError
from pfcalib.geometry import BARREL
from pfcalib.samples.maps import CachedCells, CachedSample, clear_cache, open_cache
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


def test_the_arrays_stay_on_disk(rng, tmp_path):
    write_sample(tmp_path / "barrel.root", make_sample(rng, 20, BARREL))
    cache = open_cache(tmp_path / "barrel.root")
    for array in (cache.cell, cache.energy, cache.offsets, cache.scalars["clusterE"]):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_cells_of_any_clusters_can_be_read(sample, path):
    cache, rows = open_cache(path), np.array([299, 0, 7, 7])
    cells = CachedCells([cache])
    offsets, cell, energy = cells.read(rows)
    wanted = sample[rows]
    np.testing.assert_array_equal(offsets, wanted.offsets)
    np.testing.assert_array_equal(cell, wanted.cells["cluster_cell_ID"])
    np.testing.assert_array_equal(energy, wanted.cells["cluster_cell_E"])
    cache.release()
    np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])
    assert len(cells.read(rows[:0])[1]) == 0


def test_it_is_built_once_and_shared_by_copies_of_the_same_content(path, monkeypatch):
    open_cache(path)
    monkeypatch.setattr("pfcalib.samples.maps.iterate_sample", None)
    shutil.copy2(path, path.with_name("sample.copy"))
    open_cache(path)
    assert len(folders(path)) == 1


def test_a_file_of_new_content_is_never_served_from_the_old_maps(sample, path):
    open_cache(path)
    write_sample(path, sample[:100])
    assert open_cache(path).n_clusters == 100
    assert len(folders(path)) == 2


def test_threads_at_the_same_time_end_with_one_whole_cache(sample, path, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_cache(path, cache_dir=tmp_path / "maps"), range(4)))
    assert len([entry for entry in (tmp_path / "maps").iterdir() if entry.is_dir()]) == 1
    for cache in caches:
        np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])


def build(path, barrier, queue):
    """In a process: wait for the others, open the cache, tell its content and the folder's
    inode.
    """
    barrier.wait()
    cache = open_cache(path)
    queue.put((float(cache.energy.sum()), cache.folder.stat().st_ino))


def test_processes_at_the_same_time_build_one_cache(sample, path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=build, args=(path, barrier, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert set(found) == {
        (float(sample.cells["cluster_cell_E"].sum()), open_cache(path).folder.stat().st_ino)
    }
    assert len(folders(path)) == 1


def cut(folder):
    os.truncate(folder / "arrays.bin", 1000)


def lose(folder):
    (folder / "index.json").unlink()


def scribble(folder):
    (folder / "index.json").write_text("{")


def break_geo(folder):
    content = bytearray((folder / "geo.npz").read_bytes())
    content[200] ^= 255
    (folder / "geo.npz").write_bytes(content)


def shift_offsets(folder):
    index = json.loads((folder / "index.json").read_text())
    index["arrays"]["offsets"][1] += 8
    index["arrays"]["offsets"][2] -= 1
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("damage", [cut, lose, scribble, break_geo, shift_offsets])
def test_a_damaged_cache_is_noticed_and_built_anew(sample, path, damage):
    damage(open_cache(path).folder)
    with pytest.warns(UserWarning, match="is damaged"):
        cache = open_cache(path)
    np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_cache(path, verify=True)


def test_a_flipped_bit_is_noticed_when_asked_for(sample, path):
    file = open_cache(path).folder / "arrays.bin"
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(content)
    assert not np.array_equal(open_cache(path).energy, sample.cells["cluster_cell_E"])
    with pytest.warns(UserWarning, match="checksum"):
        cache = open_cache(path, verify=True)
    np.testing.assert_array_equal(cache.energy, sample.cells["cluster_cell_E"])


def test_a_cache_that_is_cut_while_open_is_an_error_and_no_crash(path):
    cache = open_cache(path)
    cells = CachedCells([cache, cache])
    os.truncate(cache.folder / "arrays.bin", (cache.folder / "arrays.bin").stat().st_size - 4000)
    with pytest.raises(BadFileError, match="cells of cluster 299 cannot be read"):
        cells.read(np.array([0, 599]))


def test_what_a_killed_builder_left_is_cleared_away(path):
    final = open_cache(path).folder
    left = final.with_name(f".{final.name}.abc")
    final.rename(left)
    open_cache(path)
    assert not left.exists()


def test_a_cache_can_be_removed_and_a_reader_keeps_what_it_has(sample, path):
    cells = CachedCells([open_cache(path)])
    write_sample(path, sample[:100])
    open_cache(path)
    freed = clear_cache(path)
    assert freed > 2 * 300 * 4
    assert folders(path) == []
    assert clear_cache([path]) == 0
    np.testing.assert_array_equal(cells.read(np.arange(300))[2], sample.cells["cluster_cell_E"])


def test_a_cache_of_another_name_is_not_removed(sample, path):
    other = path.with_name("sample-2.root")
    write_sample(other, sample[:10])
    open_cache(other)
    assert clear_cache(path) == 0
    assert len(folders(path)) == 1


def test_a_file_that_changes_while_its_cache_is_built_is_refused(sample, path, monkeypatch):
    build_arrays = CachedSample

    def replace_file(folder):
        write_sample(path, sample[:50])
        return build_arrays(folder)

    monkeypatch.setattr("pfcalib.samples.maps.CachedSample", replace_file)
    with pytest.raises(BadFileError, match="replaced or changed"):
        open_cache(path)
    assert folders(path) == []


def test_an_address_has_no_cache():
    with pytest.raises(BadFileError, match="only files on disk"):
        open_cache("https://example.org/sample.root")


def test_a_sample_without_cells_has_no_cache(sample, tmp_path):
    write_sample(
        tmp_path / "bare.root",
        type(sample)(sample.scalars, np.zeros(301, dtype=np.int64), {}, sample.geo, {}),
    )
    with pytest.raises(BadFileError, match="has no cells"):
        open_cache(tmp_path / "bare.root")


def test_a_bad_file_leaves_no_cache_behind(sample, path):
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadFileError, match="cut short"):
        open_cache(path)
    assert folders(path) == []
    with pytest.raises(BadFileError, match="no such file"):
        open_cache(path.with_name("gone.root"))


def test_an_empty_sample_has_an_empty_cache(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    assert open_cache(tmp_path / "empty.root").n_clusters == 0


def test_a_folder_that_cannot_be_written_is_left_alone(path, tmp_path, monkeypatch):
    monkeypatch.setattr("pfcalib.samples.maps.os.access", lambda *arguments: False)
    monkeypatch.setattr(
        "pfcalib.samples.maps.tempfile.gettempdir", lambda: str(tmp_path / "elsewhere")
    )
    open_cache(path, cache_dir=None)
    assert not (path.parent / ".pfcalib_cache").exists()
