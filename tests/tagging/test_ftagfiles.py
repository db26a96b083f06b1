"""Files of jets with tracks: round trips, units, names of older files, what is wrong is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from tagging.toy_jets import toy_jets

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.tagging.ftagfiles import (
    LABEL,
    TRACK_INPUTS,
    join_tagged,
    read_tagged,
    split_by_event,
    write_tagged,
)


def same(table, expected):
    assert table.dtype == expected.dtype
    for name in table.dtype.names:
        np.testing.assert_allclose(table[name], expected[name], rtol=3e-7)


@pytest.mark.parametrize("unit", ["MeV", "GeV"])
def test_what_is_written_is_read(tmp_path, unit):
    sample = toy_jets(50)
    write_tagged(tmp_path / "jets.h5", sample, unit=unit)
    read = read_tagged(tmp_path / "jets.h5")
    same(read.jets, sample.jets)
    same(read.tracks, sample.tracks)
    some = read_tagged(tmp_path / "jets.h5", {"jets": ["pt", LABEL], "tracks": ["d0"]}, slice(3, 9))
    assert some.jets.dtype.names == ("pt", LABEL)
    assert some.tracks.dtype.names == ("d0", "valid")
    np.testing.assert_array_equal(some.tracks["d0"], sample.tracks["d0"][3:9])


def test_files_hold_mev_and_the_reader_believes_what_it_is_told(tmp_path):
    sample = toy_jets(20)
    write_tagged(tmp_path / "jets.h5", sample)
    with h5py.File(tmp_path / "jets.h5", "a") as file:
        np.testing.assert_allclose(file["jets"]["pt"], 1e3 * sample.jets["pt"], rtol=1e-6)
        np.testing.assert_allclose(
            file["tracks"]["qOverP"], 1e-3 * sample.tracks["qOverP"], rtol=1e-6
        )
        del file.attrs["energy_unit"]
    np.testing.assert_allclose(
        read_tagged(tmp_path / "jets.h5").jets["pt"], sample.jets["pt"], rtol=1e-6
    )
    told = read_tagged(tmp_path / "jets.h5", unit="GeV")
    np.testing.assert_allclose(told.jets["pt"], 1e3 * sample.jets["pt"], rtol=1e-6)
    with pytest.raises(ConfigError, match="expected one of GeV, MeV"):
        read_tagged(tmp_path / "jets.h5", unit="keV")


def test_older_names_half_precision_and_holes_in_the_tracks_are_read(tmp_path):
    sample = toy_jets(30)
    rng = np.random.default_rng(4)
    order = rng.permuted(np.tile(np.arange(40), (30, 1)), axis=1)
    shuffled = np.take_along_axis(sample.tracks, order, axis=1)
    old = np.zeros(shuffled.shape, [("IP3D_signed_d0_significance", "f2"), ("valid", "?")])
    old["IP3D_signed_d0_significance"] = shuffled["lifetimeSignedD0Significance"]
    old["valid"] = shuffled["valid"]
    old["IP3D_signed_d0_significance"][~old["valid"]] = np.nan
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["jets"], file["tracks"] = sample.jets, old
    read = read_tagged(tmp_path / "old.h5")
    values = read.tracks["lifetimeSignedD0Significance"]
    np.testing.assert_array_equal(read.valid, sample.valid)
    expected = sample.tracks["lifetimeSignedD0Significance"]
    np.testing.assert_allclose(np.sort(values), np.sort(expected), rtol=1e-3, atol=1e-3)
    assert not values[~read.valid].any()


def test_what_is_wrong_is_named(tmp_path):
    path, sample = tmp_path / "jets.h5", toy_jets(20)
    with pytest.raises(BadFileError, match="expected an h5 file"):
        read_tagged(path)

    def broken(table, dataset):
        other = sample.tracks if dataset == "jets" else sample.jets
        with h5py.File(path, "w") as file:
            file[dataset], file["tracks" if dataset == "jets" else "jets"] = table, other
        return path

    with pytest.raises(BadFileError, match="jets: expected a dataset with named fields"):
        read_tagged(broken(np.zeros(20), "jets"))
    with pytest.raises(BadFileError, match=r"jets.h5: tracks: no field d0"):
        read_tagged(broken(sample.tracks[["pt", "valid"]], "tracks"), {"tracks": ["d0"]})
    with pytest.raises(BadFileError, match="no field valid"):
        read_tagged(broken(sample.tracks[["pt", "d0"]], "tracks"))
    with pytest.raises(BadFileError, match=r"shape \(20,\) and tracks of \(19, 40\)"):
        read_tagged(broken(sample.tracks[:-1], "tracks"))
    wrong = sample.jets.copy()
    wrong[LABEL][3] = 7
    with pytest.raises(BadFileError, match=f"jets: {LABEL} = 7: expected 5, 4, 0, 15"):
        read_tagged(broken(wrong, "jets"))
    wrong = sample.tracks.copy()
    row = int(np.argmax(sample.valid[:, 0]))
    wrong["d0"][row, 0] = np.inf
    with pytest.raises(BadFileError, match=f"tracks: d0 of jet {row} = inf"):
        read_tagged(broken(wrong, "tracks"))


def test_jets_of_an_event_share_a_split_and_samples_do_not_share_events():
    sample = join_tagged([toy_jets(4000), toy_jets(4000, 2)])
    split = split_by_event(sample)
    one, two = split[:4000], split[4000:]
    assert (one[::2] == one[1::2]).all()
    np.testing.assert_array_equal(one, two)  # the same numbers of events of the same process
    other = sample.jets.copy()
    other["mcChannelNumber"][4000:] = 9
    moved = split_by_event(type(sample)(other, sample.tracks))
    assert 0.3 < np.mean(moved[4000:] == two) < 0.7
    assert abs(np.mean(split == 2) - 0.2) < 0.03


def test_inputs_are_the_fields_in_their_order():
    sample = toy_jets(10)
    inputs = sample.inputs()
    assert inputs.shape == (10, 40, 19)
    np.testing.assert_array_equal(inputs[..., TRACK_INPUTS.index("d0")], sample.tracks["d0"])
    assert len(sample[np.arange(3)]) == 3
