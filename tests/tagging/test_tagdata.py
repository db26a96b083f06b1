"""Tracks without padding, and weights that make classes alike."""

import numpy as np
import pytest
from tagging.toy_jets import toy_jets

from pfcalib.errors import ConfigError
from pfcalib.tagging.ftagfiles import TRACK_INPUTS
from pfcalib.tagging.tagdata import COLUMN, equal_weights, tag_data, weigh_splits


def test_tracks_and_labels_are_those_of_the_sample():
    sample = toy_jets(30)
    sample.jets["HadronConeExclTruthLabelID"][4] = 15
    data = tag_data(sample)
    assert len(data.label) == 29
    assert data.label[3] == [5, 4, 0].index(sample.label[3])
    rows = np.delete(np.arange(30), 4)
    for place, row in ((0, 0), (10, 11), (28, 29)):
        mine = slice(*data.offsets[place : place + 2])
        there = sample.valid[row]
        for name in ("d0", "numberOfSCTHits"):
            np.testing.assert_array_equal(
                data.tracks[mine, COLUMN[name]], sample.tracks[name][row][there]
            )
        assert (
            data.vertex[mine].tolist() == sample.tracks["ftagTruthVertexIndex"][row][there].tolist()
        )
    assert data.tracks.shape[1] == len(TRACK_INPUTS)
    true = sample.jets["ptFromTruthDressedWZJet"][rows] / sample.jets["pt"][rows]
    np.testing.assert_allclose(np.exp(data.log_ratio), true, rtol=1e-5)


def test_jets_and_tracks_are_taken_kept_and_ordered():
    data = tag_data(toy_jets(40))
    rows = np.array([7, 3, 21])
    some = data.take(rows)
    assert some.n_tracks.tolist() == data.n_tracks[rows].tolist()
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(
            some.tracks[some.offsets[i] : some.offsets[i + 1]],
            data.tracks[data.offsets[row] : data.offsets[row + 1]],
        )
    kept = data.keep_tracks(data.tracks[:, COLUMN["d0"]] > 0.0)
    assert (kept.tracks[:, COLUMN["d0"]] > 0.0).all()
    assert len(kept.label) == 40
    n = np.bincount(data.jet_of[data.tracks[:, COLUMN["d0"]] > 0.0], minlength=40)
    assert kept.n_tracks.tolist() == n.tolist()
    ordered = data.order_tracks(data.tracks[:, COLUMN["qOverP"]])
    rising = np.diff(ordered.tracks[:, COLUMN["qOverP"]]) >= 0.0
    assert (rising | (np.diff(ordered.jet_of) > 0)).all()
    assert sorted(ordered.tracks[:, 0]) == sorted(data.tracks[:, 0])


@pytest.mark.parametrize("flat", [False, True])
def test_weights_make_classes_alike(flat):
    rng = np.random.default_rng(1)
    label = rng.choice(3, 60_000, p=[0.6, 0.3, 0.1])
    pt = 20.0 + rng.exponential(np.array([80.0, 60.0, 50.0])[label])
    edges = np.array([20.0, 40.0, 70.0, 110.0, 200.0])
    weight = equal_weights(label, pt, edges=(edges,), flat=flat).astype(np.float64)
    assert weight.mean() == pytest.approx(1.0, rel=1e-5)
    shares = []
    for k in range(3):
        mine = label == k
        assert weight[mine].sum() == pytest.approx(20_000, rel=1e-4)
        content = np.histogram(np.minimum(pt, 199.0)[mine], edges, weights=weight[mine])[0]
        shares.append(content / content.sum())
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-4)
    np.testing.assert_allclose(shares[0], shares[2], rtol=1e-4)
    assert not flat or np.allclose(shares[0], 0.25, rtol=1e-4)


def test_rare_bins_are_bounded_and_edges_must_fit():
    label, pt = np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 9.0])
    weight = equal_weights(label, pt, edges=([0.0, 5.0, 10.0],), flat=True, largest=1.2)
    assert weight[5] / weight[3] < 3.0
    assert weight[:3].sum() == pytest.approx(3.0)
    with pytest.raises(ConfigError, match="edges"):
        equal_weights(label, pt, edges=())


def test_each_split_is_weighted_by_itself():
    data = tag_data(toy_jets(900))
    split = np.repeat(np.array([0, 2], dtype=np.int8), 450)
    weight = weigh_splits(data, split).weight
    for k in (0, 2):
        each = np.bincount(data.label[split == k], weight[split == k])
        np.testing.assert_allclose(each, 150.0, rtol=1e-4)
