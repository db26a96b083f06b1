"""Files of noise-free showers come back as they were written, and damaged ones are refused with the
place.
"""

import numpy as np
import pytest
import uproot

from pfcalib.errors import BadFileError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import SHOWER_TREE, Showers, read_showers, write_showers

METADATA = {"generator": "by hand", "seed": 1}


@pytest.fixture
def showers(rng):
    """Five showers, the second without cells; values that single precision holds."""
    counts = np.array([4, 0, 10, 1, 7])
    return Showers(
        pdg_id=np.array([111, 211, 22, 211, 111], np.int32),
        e_true=np.array([1.0, 2.5, 8.0, 16.0, 0.5]),
        eta=np.array([0.0, 0.25, -0.125, 0.5, 0.0625]),
        phi=np.array([0.5, -0.25, 0.0, 0.125, 0.25]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        cell=rng.integers(0, WINDOW.n_cells, counts.sum()).astype(np.int32),
        signal=rng.integers(1, 1000, counts.sum()) / 256.0,
    )


def test_showers_come_back_as_they_were_written(showers, tmp_path):
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    back, metadata = read_showers(tmp_path / "showers.root", WINDOW)
    assert metadata == METADATA
    for name, a, b in zip(Showers._fields, back, showers, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


def test_only_the_finished_file_remains(showers, tmp_path):
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    assert [path.name for path in tmp_path.iterdir()] == ["showers.root"]


def test_a_failure_leaves_the_old_file_and_no_other(showers, tmp_path):
    path = tmp_path / "showers.root"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_showers(path, showers, WINDOW, {"seed": object()})
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_no_showers_are_a_file_too(showers, tmp_path):
    write_showers(tmp_path / "empty.root", showers.select(np.zeros(5, bool)), WINDOW, METADATA)
    back, _ = read_showers(tmp_path / "empty.root", WINDOW)
    assert len(back.e_true) == len(back.cell) == 0
    assert back.offsets.tolist() == [0]


def test_a_selection_keeps_the_cells_of_its_showers(showers):
    part = showers.select(showers.pdg_id == 111)
    assert part.e_true.tolist() == [1.0, 0.5]
    assert part.offsets.tolist() == [0, 4, 11]
    np.testing.assert_array_equal(
        part.signal, np.concatenate([showers.signal[:4], showers.signal[15:]])
    )


def test_cells_of_another_grid_are_refused(showers, tmp_path):
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    with pytest.raises(
        BadFileError,
        match=r"showers\.root: CellGeo does not describe the cells of the grid 'barrel'",
    ):
        read_showers(tmp_path / "showers.root", BARREL)


def test_an_energy_that_is_not_finite_is_refused_with_its_entry(showers, tmp_path):
    showers.signal[5] = np.nan
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    with pytest.raises(
        BadFileError, match=r"ShowerTree: entry 2: cluster_cell_E is nan, it must be finite"
    ):
        read_showers(tmp_path / "showers.root", WINDOW)


def test_a_cell_that_does_not_exist_is_refused_with_its_entry(showers, tmp_path):
    showers.cell[-1] = WINDOW.n_cells
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    with pytest.raises(
        BadFileError, match=r"ShowerTree: entry 4: cluster_cell_ID is 1000, it must be in CellGeo"
    ):
        read_showers(tmp_path / "showers.root", WINDOW)


@pytest.mark.parametrize("energy", [np.nan, 0.0, -1.0])
def test_a_true_energy_that_cannot_be_is_refused_with_its_entry(energy, showers, tmp_path):
    showers.e_true[3] = energy
    write_showers(tmp_path / "showers.root", showers, WINDOW, METADATA)
    with pytest.raises(BadFileError, match=r"ShowerTree: entry 3: truthE is .*, it must be"):
        read_showers(tmp_path / "showers.root", WINDOW)


def test_other_files_are_refused(tmp_path):
    with uproot.recreate(tmp_path / "other.root") as file:
        file["nothing"] = "here"
    with pytest.raises(BadFileError, match=SHOWER_TREE):
        read_showers(tmp_path / "other.root", WINDOW)


def test_the_packaged_geant4_showers_say_what_they_are():
    showers, metadata = read_showers(packaged_sample("geant4_pions"), WINDOW)
    assert metadata["generator"] == "Geant4 11.4.1, synthetic tables"
    assert np.bincount(np.searchsorted([22, 111, 211], showers.pdg_id)).min() > 1000
    assert np.abs(showers.eta).max() <= 0.05
    assert np.all(showers.signal > 0.0)
