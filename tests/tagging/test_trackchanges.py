"""What is done to tracks does what it says."""

import numpy as np
import pytest
from tagging.toy_jets import toy_jets

from pfcalib.errors import ConfigError
from pfcalib.tagging.tagdata import COLUMN, tag_data
from pfcalib.tagging.trackchanges import (
    flip_signs,
    limit_tracks,
    lose_tracks,
    order_tracks,
    smear_impact,
    without_each,
)

SD0 = COLUMN["lifetimeSignedD0Significance"]


@pytest.fixture(scope="module")
def data():
    return tag_data(toy_jets(3000))


def test_the_first_tracks_stay(data):
    few = limit_tracks(data, 3)
    assert few.n_tracks.tolist() == np.minimum(data.n_tracks, 3).tolist()
    jet = int(np.argmax(data.n_tracks))
    np.testing.assert_array_equal(
        few.tracks[few.offsets[jet] : few.offsets[jet] + 3],
        data.tracks[data.offsets[jet] : data.offsets[jet] + 3],
    )


def test_orders(data):
    rng = np.random.default_rng(1)
    shuffled = order_tracks(data, "chance", rng=rng)
    assert not np.array_equal(shuffled.tracks, data.tracks)
    np.testing.assert_array_equal(
        order_tracks(shuffled, "significance", rng=rng).tracks[:, SD0], data.tracks[:, SD0]
    )
    by_momentum = order_tracks(data, "momentum", rng=rng)
    softer = np.diff(np.abs(by_momentum.tracks[:, COLUMN["qOverP"]])) >= 0.0
    assert (softer | (np.diff(by_momentum.jet_of) > 0)).all()
    with pytest.raises(ConfigError, match="phase"):
        order_tracks(data, "phase", rng=rng)


def test_signs_are_turned_and_back(data):
    flipped = flip_signs(data)
    np.testing.assert_array_equal(flipped.tracks[:, SD0], -data.tracks[:, SD0])
    np.testing.assert_array_equal(flip_signs(flipped).tracks, data.tracks)


def test_worse_impact_parameters_have_the_width_that_was_asked_for(data):
    prompt = data.keep_tracks(data.vertex == 0)
    width = prompt.tracks[:, SD0].std()
    worse = smear_impact(prompt, 1.5, rng=np.random.default_rng(2)).tracks
    assert width == pytest.approx(1.0, abs=0.03)
    assert worse[:, SD0].std() == pytest.approx(1.5, abs=0.04)
    sigma, before = (np.abs(t[:, COLUMN["d0"]] / t[:, SD0]) for t in (worse, prompt.tracks))
    np.testing.assert_allclose(np.sort(sigma), np.sort(before), rtol=1e-3)
    with pytest.raises(ConfigError, match="factor"):
        smear_impact(data, 0.9, rng=np.random.default_rng(2))


def test_tracks_are_lost_at_random(data):
    fewer = lose_tracks(data, 0.25, rng=np.random.default_rng(3))
    assert len(fewer.tracks) / len(data.tracks) == pytest.approx(0.75, abs=0.01)
    assert len(fewer.label) == len(data.label)


def test_each_track_is_left_out_once(data):
    some = data.take(np.flatnonzero(data.n_tracks == 4)[:2])
    found = without_each(some)
    assert found.n_tracks.tolist() == [3] * 8
    for track, jet in enumerate(some.jet_of):
        rest = np.delete(np.arange(4 * jet, 4 * jet + 4), track - 4 * jet)
        mine = slice(*found.offsets[track : track + 2])
        np.testing.assert_array_equal(found.tracks[mine], some.tracks[rest])
        assert found.label[track] == some.label[jet]
