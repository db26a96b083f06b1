"""The network on objects sees masses and distances of pairs, and neither padding nor azimuth."""

import numpy as np
import pytest

from pfcalib.deploy.export import predict
from pfcalib.deploy.validator import check_stored_model, require_parity
from pfcalib.higgs.objectnet import (
    COLUMNS,
    N_OBJECTS,
    ObjectNetworkConfig,
    build_object_network,
    event_objects,
    fit_object_network,
    pair_quantities,
)
from pfcalib.higgs.topevents import MAX_JETS, TopEvents
from pfcalib.training.classes import INPUT, Candidates
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def sample(n=300, seed=1):
    rng = np.random.default_rng(seed)
    there = np.arange(MAX_JETS) < rng.integers(6, MAX_JETS + 1, n)[:, None]
    angles = rng.normal(0.0, 1.0, (n, MAX_JETS, 2))
    pt = rng.uniform(25.0, 200.0, (n, MAX_JETS, 1))
    jets = np.concatenate([pt, angles, 0.1 * pt], axis=-1) * there[..., None]
    lepton = np.stack([np.full(n, 50.0), rng.normal(0, 1, n), rng.uniform(-3, 3, n)], -1)
    missing = np.stack([np.full(n, 40.0), rng.uniform(-3, 3, n)], -1)
    tag = rng.integers(0, 5, (n, MAX_JETS)) * there
    label = rng.integers(0, 2, n)
    return TopEvents(jets, tag, lepton, missing, label, np.ones(n), np.array([n]))


def test_objects_are_what_the_events_hold_seen_from_the_lepton():
    events = sample()
    objects = event_objects(events).reshape(-1, N_OBJECTS, len(COLUMNS))
    np.testing.assert_allclose(objects[:, :MAX_JETS, 0], events.jets[..., 0], rtol=1e-6)
    np.testing.assert_allclose(objects[:, MAX_JETS, 2], 0.0, atol=1e-6)
    np.testing.assert_array_equal(objects[..., 5:].sum(axis=-1)[:, -2:], 1.0)
    assert not objects[:, :MAX_JETS][events.jets[..., 0] == 0.0].any()
    turned = events._replace(
        jets=events.jets + np.array([0, 0, 0.7, 0]) * (events.jets[..., :1] > 0),
        lepton=events.lepton + np.array([0, 0, 0.7]),
        missing=events.missing + np.array([0, 0.7]),
    )
    np.testing.assert_allclose(event_objects(turned), event_objects(events), atol=1e-4)


def test_pairs_tell_their_mass():
    events = sample(5)
    objects = event_objects(events).reshape(-1, N_OBJECTS, len(COLUMNS))
    log_mass = np.asarray(pair_quantities(objects)[0])
    pt, eta, phi = np.moveaxis(objects[..., :3].astype(float), -1, 0)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], -1)
    both = p[:, :, None] + p[:, None]
    mass = np.sqrt(np.maximum(both[..., 3] ** 2 - (both[..., :3] ** 2).sum(-1), 0.0))
    np.testing.assert_allclose(50.0 * np.expm1(log_mass), mass, atol=0.3)


@pytest.mark.parametrize("pair_bias", [True, False])
def test_what_lies_in_the_padding_and_the_order_of_jets_do_not_matter(pair_bias):
    model = build_object_network(4, ObjectNetworkConfig(width=8, n_heads=2, pair_bias=pair_bias))
    table = event_objects(sample(40))
    objects = table.reshape(-1, N_OBJECTS, len(COLUMNS))
    p = predict(model, {INPUT: table})
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
    turned = objects[:, np.random.default_rng(1).permutation(N_OBJECTS)].reshape(table.shape)
    np.testing.assert_allclose(predict(model, {INPUT: turned}), p, atol=1e-5)
    hidden = objects.copy()
    hidden[..., :5] += 3.0 * (objects[..., 5:].sum(axis=-1, keepdims=True) == 0.0)
    np.testing.assert_allclose(predict(model, {INPUT: hidden.reshape(table.shape)}), p, atol=1e-5)


def test_a_network_learns_a_mass_and_its_file_is_valid(tmp_path, monkeypatch):
    """Signal: the two tagged jets have a mass near 90 GeV."""
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    n = 2000
    events = sample(n, seed=3)
    events.tag[:, :2], events.tag[:, 2:] = 4, 0
    one, other = events.jets[:, 0], events.jets[:, 1]
    near = events.label == 1
    events.jets[near, 1, 0] = (
        0.5
        * 90.0**2
        / one[near, 0]
        / (np.cosh(one[near, 1] - other[near, 1]) - np.cos(one[near, 2] - other[near, 2]))
    )
    split = (np.arange(n) >= 1500).astype(np.int8)
    data = Candidates(event_objects(events), events.label, events.weight, split)
    config = ObjectNetworkConfig(
        width=16, n_heads=2, n_blocks=1, dropout=0.0,
        train=TrainConfig(learning_rate=0.01, batch_size=50, epochs=8),
    )  # fmt: skip
    network = fit_object_network(
        data, config, classes=("a", "b"), inputs="a test", say=lambda line: None
    )
    assert network.best_loss < 0.6 < np.log(2.0)
    require_parity(check_stored_model(network.path))
    again = fit_object_network(
        data, config, classes=("a", "b"), inputs="a test", say=lambda line: None
    )
    np.testing.assert_array_equal(
        again.probabilities(data.table), network.probabilities(data.table)
    )
