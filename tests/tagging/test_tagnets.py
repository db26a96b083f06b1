"""Networks on tracks: padding, order, none at all, and what pairs are."""

import dataclasses

import keras
import numpy as np
import pytest
from tagging.toy_jets import toy_jets

from pfcalib.errors import ConfigError
from pfcalib.tagging.tagdata import COLUMN, tag_data
from pfcalib.tagging.tagfit import track_inputs
from pfcalib.tagging.tagnets import (
    ORIGIN,
    OUTPUT,
    PAIRS,
    PUBLISHED,
    RATIO,
    TRACKS,
    TaggerConfig,
    adapt_scales,
    build_tagger,
    pair_quantities,
    tagger_loss,
)

SMALL = {
    "rnnip": TaggerConfig(kind="rnnip", width=8, n_heads=1, n_tracks=5, head_widths=(6,)),
    "dips": TaggerConfig(kind="dips", first_widths=(8,), width=8, head_widths=(6,)),
    "gn1": TaggerConfig(kind="gn1", width=8, n_heads=2, n_blocks=2, tasks=True),
    "gn2": TaggerConfig(kind="gn2", width=8, n_heads=2, n_blocks=2, tasks=True, pair_widths=(4,)),
    "part": TaggerConfig(
        kind="part", width=8, n_heads=2, n_blocks=1, n_class_blocks=2, pair_widths=(4,),
        energy=True, dropout=0.1,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return tag_data(toy_jets(60))


def adapted(config, data):
    model = build_tagger(config, seed=1)
    adapt_scales(model, data.tracks, data.jets)
    return model


def answers(model, feed):
    found = model({name: feed[name] for name in model.input}, training=False)
    return dict(zip(model.output_names, map(np.asarray, keras.tree.flatten(found)), strict=True))


@pytest.mark.parametrize("kind", SMALL)
def test_padding_and_jets_beside_change_nothing(kind, data):
    model, rows = adapted(SMALL[kind], data), np.arange(12)
    n = int(data.n_tracks[rows].max())
    short, long = (answers(model, track_inputs(data, rows, k)) for k in (n, n + 9))
    for name, found in short.items():
        cut = long[name][tuple(slice(k) for k in found.shape)]
        np.testing.assert_allclose(found, cut, atol=2e-6)
        assert np.isfinite(long[name]).all()
    alone = answers(model, track_inputs(data, rows[3:4], n))
    np.testing.assert_allclose(alone[OUTPUT][0], short[OUTPUT][3], atol=2e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_a_jet_without_tracks_is_told_by_its_momentum(kind, data):
    model = adapted(SMALL[kind], data)
    none, some = (
        answers(model, track_inputs(data.keep_tracks(np.zeros(len(data.tracks), bool)), rows, n))
        for rows, n in ((np.arange(3), 0), (np.arange(3), 7))
    )
    np.testing.assert_allclose(none[OUTPUT], some[OUTPUT], atol=2e-6)
    np.testing.assert_allclose(none[OUTPUT].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_only_a_memory_knows_the_order_of_tracks(kind, data):
    config = dataclasses.replace(SMALL[kind], n_tracks=15 if kind == "rnnip" else 0)
    model, feed = adapted(config, data), track_inputs(data, np.arange(20), 15)
    turned = {**feed, TRACKS: feed[TRACKS].copy()}
    for row, n in enumerate(np.minimum(data.n_tracks[:20], 15)):
        turned[TRACKS][row, :n] = feed[TRACKS][row, :n][::-1]
    away = np.abs(answers(model, feed)[OUTPUT] - answers(model, turned)[OUTPUT]).max()
    assert away > 1e-4 if kind == "rnnip" else away < 5e-6


def test_outputs_are_those_of_the_tasks(data):
    feed = track_inputs(data, np.arange(4), 6)
    found = answers(adapted(SMALL["gn2"], data), feed)
    assert {k: v.shape for k, v in found.items()} == {
        OUTPUT: (4, 3), ORIGIN: (4, 6, 8), PAIRS: (4, 6, 6),
    }  # fmt: skip
    np.testing.assert_allclose(found[PAIRS], found[PAIRS].transpose(0, 2, 1), atol=1e-6)
    assert answers(adapted(SMALL["part"], data), feed)[RATIO].shape == (4, 1)


def test_pairs_are_those_of_massless_particles():
    jets, tracks = np.array([[50.0, 0.4]], np.float32), np.zeros((1, 3, 20), np.float32)
    pt, deta, dphi = np.array([4.0, 1.5]), np.array([0.1, -0.05]), np.array([0.0, 0.2])
    eta = 0.4 + deta
    tracks[0, :2, 0] = 1.0
    for name, values in (("deta", deta), ("dphi", dphi), ("qOverP", 1.0 / (pt * np.cosh(eta)))):
        tracks[0, :2, 1 + COLUMN[name]] = values
    found = np.asarray(pair_quantities(tracks, jets))[0, 0, 1]
    delta = np.hypot(0.15, 0.2)
    p4 = np.stack([pt * np.cosh(eta), pt * np.cos(dphi), pt * np.sin(dphi), pt * np.sinh(eta)])
    m2 = p4.sum(axis=1)[0] ** 2 - (p4.sum(axis=1)[1:] ** 2).sum()
    wanted = [np.log(delta) / 2 + 1.5, np.log(1.5 * delta), np.log(1.5 / 5.5) / 2 + 1.0]
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-4)
    assert found[3] * 3.0 == pytest.approx(np.log(m2), abs=0.02)  # small angles
    assert not np.asarray(pair_quantities(tracks, jets))[0, :, 2].any()


def test_the_loss_leaves_out_what_is_not_known():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)
    true = {
        OUTPUT: np.eye(3, dtype=np.float32)[[0, 2]],
        ORIGIN: np.array([[2.0, -1.0], [-1.0, -1.0]], np.float32),
        PAIRS: np.array([[[-1, 1], [1, -1]], [[-1, -1], [-1, -1]]], np.float32),
        RATIO: np.array([[0.05], [1.0]], np.float32),
    }
    said = {
        OUTPUT: p,
        ORIGIN: np.zeros((2, 2, 8), np.float32),
        PAIRS: np.zeros((2, 2, 2), np.float32),
        RATIO: np.zeros((2, 1), np.float32),
    }
    weight = np.array([3.0, 1.0], np.float32)
    entropy = -(3.0 * np.log(0.5) + np.log(0.8)) / 4.0
    wanted = entropy + 0.5 * np.log(8.0) + 1.5 * np.log(2.0) + (3 * 0.125 + 9.5) / 4.0
    assert float(tagger_loss(true, said, weight)) == pytest.approx(wanted, rel=1e-4)


def test_a_logit_of_two_tracks_sees_both_and_the_jet(data):
    config = TaggerConfig(kind="gn1", width=8, n_heads=2, n_blocks=0, tasks=True)
    model, feed = adapted(config, data), track_inputs(data, np.arange(1), 3)
    feed[TRACKS][..., 0] = 1.0
    first = answers(model, feed)[PAIRS]
    asked = {**feed, TRACKS: feed[TRACKS].copy()}
    asked[TRACKS][0, 2, 1:] += 1.0  # which changes the jet too
    assert (answers(model, asked)[PAIRS] != first).all()
    assert (first == first.transpose(0, 2, 1)).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "gn9"}, "kind"),
        ({"columns": ("d0", "charm")}, "charm"),
        ({"width": 10, "n_heads": 4}, "multiple"),
        ({"kind": "dips", "tasks": True}, "each track"),
        ({"kind": "rnnip"}, "n_tracks"),
    ],
)
def test_settings_that_make_no_network_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        TaggerConfig(**options)


def test_published_sizes_are_built():
    n = {kind: build_tagger(config).count_params() for kind, config in PUBLISHED.items()}
    assert n["rnnip"] < n["dips"] < n["gn1"] < n["gn2"]
    assert n["part"] == pytest.approx(2.14e6, rel=0.02)  # arXiv:2202.03772, table 2
