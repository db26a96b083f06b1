"""Charge on pads: its place, width and size, what noise alone makes, and samples in chunks."""

import numpy as np
import pytest
from scipy.stats import norm

from pfcalib.errors import ConfigError
from pfcalib.tpc.digits import (
    BIN,
    DELAY,
    DIFFUSION,
    PAD,
    PEAKING,
    ROW,
    SPREAD,
    THRESHOLD,
    TRACK,
    DigitsConfig,
    cached_pieces,
    drift,
    read_pieces,
    simulate_pieces,
)

SMALL = DigitsConfig(n_pieces=3, n_rows=6, n_pads=30, n_times=40, tracks=(3.0, 8.0), chunk=2)
NO_LOOPERS = np.zeros((0, 9))


def straight(n, far):
    """Charge and crossings of tracks at right angles, spread evenly over a pad and a bin."""
    even = 15.0 + (np.arange(n) + 0.5) / n
    tracks = np.tile([0.0, 0.0, 0.0, 0.0, 0.0, 30.0, far], (n, 1))
    tracks[:, 0], tracks[:, 3] = even * PAD, np.roll(even, n // 3) * BIN
    return drift(tracks, NO_LOOPERS, (4, 30, 40), np.random.default_rng(1))


def moments(q):
    x = np.arange(len(q))
    mean = np.average(x, weights=q)
    return mean, np.average((x - mean) ** 2, weights=q)


def test_charge_is_where_the_track_is():
    charge, crossings = straight(60, far=0.0)
    pad, time = (moments(charge[TRACK].sum(axis=of))[0] for of in ((0, 2), (0, 1)))
    assert pad == pytest.approx(crossings[:, 3].mean(), abs=0.02)
    assert time == pytest.approx(15.5 + DELAY, abs=0.04)
    assert crossings[:, 4].mean() == pytest.approx(time, abs=0.04)
    assert len(crossings) == 60 * 4
    assert crossings[:, 7].sum() == pytest.approx(charge.sum())


@pytest.mark.parametrize("far", [0.0, 2000.0])
def test_widths_are_those_of_diffusion_spread_and_shaper(far):
    """Variances add: of diffusion, of spread or pulse (5 tau^2 / 16 for the fourth order), of the
    places of the tracks and of whole numbers, 1/12 each.
    """
    charge, _ = straight(60, far)
    root = np.sqrt((far + 15.5 * BIN) / 10.0)
    for axes, own, diffusion in (
        ((0, 2), (SPREAD / PAD) ** 2 + 1.0 / 12.0, DIFFUSION[0] / PAD),
        ((0, 1), 5.0 / 16.0 * PEAKING**2, DIFFUSION[1] / BIN),
    ):
        _, variance = moments(charge[TRACK].sum(axis=axes))
        wanted = own + (diffusion * root) ** 2 + 1.0 / 12.0
        assert variance == pytest.approx(wanted, rel=0.07)


def test_ionisation_grows_with_the_way():
    steep = np.tile([15.0 * PAD, 0.0, 0.0, 15.0 * BIN, 0.0, 1.0, 0.0], (400, 1))
    steep[:, 4] = 1.0
    rng = np.random.default_rng(3)
    _, long = drift(steep, NO_LOOPERS, (1, 30, 40), rng)
    steep[:, 4] = 0.0
    _, short = drift(steep, NO_LOOPERS, (1, 30, 40), rng)
    ratio = np.median(long[:, 7]) / np.median(short[:, 7])
    assert ratio == pytest.approx(2.0**0.5, rel=0.2)  # a little more, as few ionisations are small
    assert short[:, 7].mean() > 1.15 * np.median(short[:, 7])  # the tail of a cluster of electrons


def test_a_looper_turns_through_its_rows():
    loop = np.array([[15.0 * PAD, 3.0 * ROW, 18.0, 0.0, 1.0, 1.0, 0.3, 2.0, 0.0]])
    charge, crossings = drift(np.zeros((0, 7)), loop, (6, 30, 40), np.random.default_rng(1))
    assert charge[TRACK].sum() == 0.0
    assert (crossings[:, 2] == 1).all()
    rows = np.flatnonzero(charge[1].sum(axis=(1, 2)))
    assert rows.tolist() == [1, 2, 3, 4]  # 30 mm less and more than 18
    assert (np.diff(crossings[:, 4]) > -0.8).all()  # on along the drift
    pads = np.flatnonzero(charge[1].sum(axis=(0, 2)) > 1.0)
    assert pads.min() >= 10
    assert pads.max() <= 20


def test_noise_alone_passes_as_often_as_a_gaussian_does():
    config = DigitsConfig(n_pieces=2, tracks=(0.0, 0.0), chunk=2)
    pieces = simulate_pieces(config, 0)
    wanted = norm.sf(THRESHOLD)
    assert pieces.occupancy.mean() == pytest.approx(wanted, rel=0.1)
    assert not len(pieces.row)
    assert pieces.digits[pieces.digits > 0].min() >= THRESHOLD


def test_a_sample_does_not_depend_on_its_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    read = read_pieces(cached_pieces(SMALL, n_processes=2))
    parts = [simulate_pieces(SMALL, number) for number in (0, 1)]
    for name in read._fields:
        whole = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(read, name), whole)
    assert set(read.piece) <= {0, 1, 2}


@pytest.mark.parametrize("options", [{"n_rows": 0}, {"tracks": (5.0, 1.0)}, {"loopers": -0.1}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="DigitsConfig"):
        DigitsConfig(**options)
