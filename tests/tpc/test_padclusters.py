"""Peaks on pads and networks on windows about them."""

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.tpc.digits import DigitsConfig, simulate_pieces
from pfcalib.tpc.padclusters import ATTACHED, LOOPING, NOISY, OUTSIDE, find_peaks, windows
from pfcalib.tpc.padnets import (
    PadNetConfig,
    apply_pad_network,
    build_pad_network,
    fit_pad_network,
    network_inputs,
    training_arrays,
    true_places,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CONFIG = DigitsConfig(n_pieces=12, n_rows=8, n_pads=40, n_times=60, tracks=(10.0, 20.0), chunk=12)


@pytest.fixture(scope="module")
def pieces():
    return simulate_pieces(CONFIG, 0)


@pytest.fixture(scope="module")
def peaks(pieces):
    return find_peaks(pieces)


def by_hand(digits, crossings=()):
    """One piece with these digits, and crossings of tracks (row, pad, time)."""
    shape = digits.shape
    made = simulate_pieces(DigitsConfig(n_pieces=1, tracks=(0.0, 0.0), chunk=1), 0)
    row, pad, time = np.array(crossings, dtype=float).reshape(-1, 3).T
    zeros = np.zeros(len(row), np.float32)
    return made._replace(
        digits=digits[None].astype(np.int16), share=np.zeros((1, *shape), np.uint8),
        piece=zeros.astype(int), row=row.astype(int), track=np.arange(len(row)),
        kind=zeros.astype(int), pad=pad, time=time, width_pad=zeros, width_time=zeros,
        charge=zeros + 50.0,
    )  # fmt: skip


def test_a_peak_has_its_centre_of_gravity():
    digits = np.zeros((1, 9, 9))
    digits[0, 4, 4], digits[0, 5, 4], digits[0, 4, 3] = 20.0, 10.0, 5.0
    digits[0, 0, 8] = 3.0  # too small
    peaks = find_peaks(by_hand(digits, [(0, 4.4, 4.0), (0, 5.0, 4.5)]))
    assert len(peaks.row) == 1
    assert (peaks.pad[0], peaks.time[0], peaks.highest[0]) == (4, 4, 20.0)
    np.testing.assert_allclose(peaks.gravity[0, :2], [10.0 / 35.0, -5.0 / 35.0])
    np.testing.assert_allclose(
        peaks.gravity[0, 2:] ** 2, [10 / 35 - (10 / 35) ** 2, 5 / 35 - (5 / 35) ** 2]
    )
    assert peaks.kind[0] == ATTACHED
    assert peaks.crossing[0] == 0  # the nearer one


def test_equal_neighbours_are_one_peak_and_far_ones_are_noise():
    digits = np.zeros((2, 9, 9))
    digits[0, 4, 4] = digits[0, 4, 5] = 9.0
    digits[1, 2, 2] = 9.0
    peaks = find_peaks(by_hand(digits, [(0, 4.0, 4.5), (1, 7.0, 7.0)]))
    assert peaks.row.tolist() == [0, 1]
    assert peaks.kind.tolist() == [ATTACHED, NOISY]


def test_windows_show_three_rows_and_the_edge():
    digits = np.zeros((3, 12, 12))
    digits[1, 1, 6], digits[2, 2, 6] = 40.0, 10.0
    peaks = find_peaks(by_hand(digits))
    seen = windows(by_hand(digits), peaks, np.flatnonzero(peaks.highest == 40.0))
    assert seen.shape == (1, 244)
    window = seen[0, :-1].reshape(3, 9, 9)
    assert window[1, 4, 4] == 1.0
    assert window[2, 5, 4] == 0.25
    assert (window[:, :3] == OUTSIDE).all()  # pads -3 to -1
    assert (window[:, 3:] >= 0.0).all()
    assert seen[0, -1] == pytest.approx(np.log(2.0))


def test_peaks_of_a_sample_are_near_their_crossings(pieces, peaks):
    attached = peaks.kind == ATTACHED
    away = true_places(pieces, peaks, np.flatnonzero(attached))[:, :2] - peaks.gravity[attached, :2]
    assert (np.abs(away) < [1.5, 2.0]).all()
    assert np.median(np.abs(away[:, 0])) < 0.2
    assert len(set(peaks.crossing[attached])) == attached.sum()
    assert (peaks.crossing[~attached] == -1).all()
    assert (peaks.kind == LOOPING).any()
    inside = (pieces.kind == 0) & (np.abs(pieces.pad - 20) < 18) & (np.abs(pieces.time - 30) < 27)
    assert np.isin(np.flatnonzero(inside), peaks.crossing).mean() > 0.9


def test_an_untrained_network_gives_the_centre_of_gravity(pieces, peaks):
    rows = np.flatnonzero(peaks.kind == ATTACHED)[:20]
    for task in ("factors", "shifts"):
        model = build_pad_network(PadNetConfig(task=task, train=TrainConfig(loss="mae")))
        said = apply_pad_network(model, network_inputs(pieces, peaks, rows, task=task))
        np.testing.assert_allclose(said, peaks.gravity[rows], atol=1e-6)


def test_networks_are_trained_and_exported(pieces, peaks, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    rows = np.random.default_rng(1).permutation(len(peaks.row))
    parts = rows[: len(rows) * 2 // 3], rows[len(rows) * 2 // 3 :]
    common = {"epochs": 4, "patience": 4, "learning_rate": 3e-3, "batch_size": 32}
    for task, loss in (("class", "crossentropy"), ("factors", "mae")):
        chosen = [part if task == "class" else part[peaks.kind[part] == ATTACHED] for part in parts]
        kept = fit_pad_network(
            *(training_arrays(pieces, peaks, part, task=task) for part in chosen),
            PadNetConfig(task=task, widths=(16,), train=TrainConfig(loss=loss, **common)),
            inputs="toy", say=lambda line: None,
        )  # fmt: skip
        assert check_stored_model(kept.path).passed
        seen = network_inputs(pieces, peaks, chosen[1], task=task)
        said = apply_pad_network(kept.model, seen)
        if task == "class":
            track = peaks.kind[chosen[1]] == ATTACHED
            assert said[track].mean() > said[~track].mean() + 0.1
        else:
            assert said.shape == (len(chosen[1]), 4)


@pytest.mark.parametrize(("task", "loss"), [("kind", "mae"), ("class", "mae")])
def test_settings_that_make_no_network_are_refused(task, loss):
    with pytest.raises(ConfigError, match="PadNetConfig"):
        PadNetConfig(task=task, train=TrainConfig(loss=loss))
