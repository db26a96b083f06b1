"""Networks whose weights are known: what they do not look at has no importance, what they look at
has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from factories import make_sample
from studies.importance import (
    DropoutRow,
    Importance,
    class_measures,
    energy_bins,
    energy_measures,
    exchange,
    importance_metrics,
    layer_dropout,
    permutation_importance,
    shuffle_in_bins,
    tabulate_dropout,
)
from studies.probe import Probe, ask, read_probe, rows_near
from studies.regions import layer_regions, ring_regions, scalar_regions

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import resolution
from pfcalib.metrics.roc import auc
from pfcalib.models.families import MODEL_KINDS, build_model
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import SCALARS, Network, NetworkConfig
from pfcalib.training.regressors import SELECTION

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

REGRESSION = NetworkConfig(
    name="dnn",
    options={"head": "energy", "with_scalars": True},
    target=TargetConfig(),
    train=TrainConfig(loss="huber"),
)
CLASSIFIER = NetworkConfig(name="dnn", options={"with_scalars": True})
NO_RESULT: Any = None


def linear_network(
    weights: dict[str, np.ndarray], config: NetworkConfig = REGRESSION, scalar_weights=(0.0, 0.0)
) -> Network:
    """ln(E / clusterE), or the logit of a neutral pion, as a weighted sum of the pixels of all
    layers and the scalars.
    """
    images = {
        name: weights.get(name, np.zeros(shape))[None].astype(np.float32)
        for name, shape in IMAGE_SHAPES.items()
    }
    inputs = {
        "pixels": keras.Input((936,), name="pixels"),
        "scalars": keras.Input((2,), name="scalars"),
    }
    joined = keras.layers.Concatenate()([inputs["pixels"], inputs["scalars"]])
    column = np.append(
        build_inputs(images, "flat")["pixels"][0], np.asarray(scalar_weights, dtype=np.float32)
    )[:, None]
    kernel = column if config.target else np.hstack([np.zeros_like(column), column])
    dense = keras.layers.Dense(
        kernel.shape[1], activation=None if config.target else "softmax", use_bias=False
    )
    model = keras.Model(inputs, dense(joined))
    dense.set_weights([kernel])
    return Network(config, model, NO_RESULT, Path("nowhere"))


def make_probe(rng, weights: dict[str, np.ndarray], n: int = 3000) -> Probe:
    """Charged and neutral clusters whose true energy is what the linear network of these weights
    says, but for two per cent.
    """
    images = {
        name: rng.exponential(1.0, (n, *IMAGE_SHAPES[name])).astype(np.float32)
        / np.prod(IMAGE_SHAPES[name])
        for name in IMAGE_LAYERS
    }
    cluster_e = 10.0 ** rng.uniform(-0.5, 2.5, n)
    scalars = np.column_stack([np.log10(cluster_e), rng.uniform(-0.7, 0.7, n)]).astype(np.float32)
    y = sum(np.tensordot(images[name], weight, axes=2) for name, weight in weights.items())
    e_true = cluster_e * np.exp(y + 0.02 * rng.standard_normal(n))
    return Probe(
        {**build_inputs(images, "flat"), "scalars": scalars}, cluster_e, e_true, rng.random(n) < 0.5
    )


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """EMB2 matters, by its core alone; nothing else does."""
    core = next(region for region in ring_regions("layers") if region.name == "EMB2 core").masks[
        "EMB2"
    ][..., 0]
    return {"EMB2": np.where(core, 20.0, 0.0)}


def test_only_the_pixels_with_weights_are_important(weights, rng):
    probe, network = make_probe(rng, weights), linear_network(weights)
    regions = [*layer_regions("flat"), *ring_regions("flat"), *scalar_regions(SCALARS)]
    measures = energy_measures(probe, [10.0], half_width=0.5)
    found = permutation_importance(network, probe, regions, measures, rng=rng)
    assert set(measures) == {"iqr_pi0_10gev", "log_pi0_10gev", "iqr_pic_10gev", "log_pic_10gev"}
    for name, lost in found.lost.items():
        assert found.intact[name].value == pytest.approx(
            0.02 * (1.0 if name.startswith("iqr") else np.sqrt(2.0 / np.pi)), rel=0.1
        )
        for region, estimate in lost.items():
            if region in ("EMB2", "EMB2 core"):
                assert estimate.value > 20.0 * estimate.error > 0.0
            else:
                assert estimate == pytest.approx((0.0, 0.0), abs=1e-9), region
        assert found.rise[name]["EMB2"].value == pytest.approx(
            lost["EMB2"].value / found.intact[name].value
        )
        assert lost["EMB2"] == pytest.approx(lost["EMB2 core"])


def test_the_loss_is_that_of_the_definition(weights, rng):
    """With as many independent donors the answer is off by the difference of two draws: ln response
    has sqrt(2) times the spread of y.
    """
    probe, network = make_probe(rng, weights, n=6000), linear_network(weights)
    y = np.log(ask(network, probe.inputs, probe.cluster_e) / probe.cluster_e)
    measures = energy_measures(probe, [10.0], half_width=0.8)
    found = permutation_importance(
        network, probe, layer_regions("flat")[1:2], measures, rng=rng, n_repeats=5
    )
    other = y[rng.permutation(len(y))]
    expected = resolution(np.exp(other - y + 0.02 * rng.standard_normal(len(y)))) - 0.02
    for species in ("pi0", "pic"):
        assert found.lost[f"iqr_{species}_10gev"]["EMB2"].value == pytest.approx(expected, rel=0.1)


def test_the_error_is_the_spread_of_repeated_experiments(weights):
    values, errors = [], []
    network = linear_network(weights)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        probe = make_probe(rng, weights, n=600)
        found = permutation_importance(
            network,
            probe,
            layer_regions("flat")[1:2],
            energy_measures(probe, [10.0], half_width=9.0),
            rng=rng,
        )
        values.append(found.lost["log_pic_10gev"]["EMB2"].value)
        errors.append(found.lost["log_pic_10gev"]["EMB2"].error)
    assert np.std(values, ddof=1) == pytest.approx(np.mean(errors), rel=0.5)


def test_the_same_seed_gives_the_same_importance(weights):
    probe, network = make_probe(np.random.default_rng(0), weights, n=500), linear_network(weights)
    measures = energy_measures(probe, [10.0], half_width=9.0)
    one, two = (
        permutation_importance(
            network,
            probe,
            layer_regions("flat"),
            measures,
            rng=np.random.default_rng(4),
            n_bootstrap=10,
        )
        for _ in range(2)
    )
    assert one == two


def test_a_classifier_loses_all_of_its_area_where_it_looks_at_one_layer(weights, rng):
    probe, network = make_probe(rng, weights), linear_network(weights, CLASSIFIER)
    logit = np.tensordot(
        probe.inputs["pixels"], network.model.layers[-1].get_weights()[0][:936, 1], axes=1
    )
    probe = probe._replace(is_em=logit + 0.1 * rng.standard_normal(len(logit)) > np.median(logit))
    found = permutation_importance(
        network, probe, layer_regions("flat"), class_measures(probe), rng=rng, n_bootstrap=30
    )
    area = auc(ask(network, probe.inputs, probe.cluster_e), probe.is_em)
    assert found.intact["auc"].value == pytest.approx(1.0 - area.value, abs=1e-12)
    assert found.intact["auc"].error == pytest.approx(area.error, rel=0.5)
    assert found.lost["auc"]["EMB2"].value == pytest.approx(area.value - 0.5, abs=0.03)
    assert found.lost["auc"]["EMB1"] == pytest.approx((0.0, 0.0), abs=1e-9)
    with pytest.raises(ValidationError, match="one class"):
        class_measures(probe._replace(is_em=np.ones(len(logit), dtype=bool)))


def test_shuffling_in_bins_keeps_the_spectrum_and_mixes_inside(rng):
    energy = 10.0 ** rng.uniform(0.0, 3.0, 5000)
    bins = energy_bins(energy, size=100)
    counts = np.bincount(bins)
    assert counts.min() >= 100
    assert counts.max() <= 101 + len(energy) % 100
    order = np.argsort(energy)
    assert (np.diff(bins[order]) >= 0).all()
    donors = shuffle_in_bins(bins, rng)
    np.testing.assert_array_equal(np.sort(donors), np.arange(5000))
    np.testing.assert_array_equal(bins[donors], bins)
    assert np.mean(donors == np.arange(5000)) < 0.03
    assert np.abs(np.log10(energy[donors] / energy)).max() < 0.15
    assert (
        np.corrcoef(
            np.argsort(np.argsort(energy)) % 100, np.argsort(np.argsort(energy[donors])) % 100
        )[0, 1]
        < 0.2
    )


def test_few_clusters_make_one_bin():
    assert energy_bins(np.array([3.0, 1.0]), size=100).tolist() == [0, 0]


@pytest.mark.parametrize("name", MODEL_KINDS)
def test_an_exchange_touches_the_region_alone_for_every_kind_of_inputs(name, rng):
    kind = MODEL_KINDS[name]
    inputs = {
        key: rng.random((6, *shape)).astype(np.float32) for key, shape in INPUT_SHAPES[kind].items()
    }
    kept = {key: array.copy() for key, array in inputs.items()}
    rows, donors = np.array([4, 0]), np.array([1, 5])
    for region in [*layer_regions(kind), *ring_regions(kind)]:
        changed = exchange(inputs, region, rows, donors)
        for key, array in changed.items():
            mask = region.masks.get(key, np.zeros(INPUT_SHAPES[kind][key], dtype=bool))
            np.testing.assert_array_equal(
                array, np.where(mask, inputs[key][donors], inputs[key][rows])
            )
    for key, array in kept.items():
        np.testing.assert_array_equal(inputs[key], array)


def test_a_layer_without_weights_can_be_dropped_and_one_alone_keeps_the_response(weights, rng):
    probe, network = make_probe(rng, weights), linear_network(weights)
    layers = layer_regions("flat")
    table = layer_dropout(network, probe, layers, [10.0], half_width=0.5, rng=rng)
    rows = {(row.layers, row.species): row for row in table}
    assert len(rows) == len(table) == 2 * (1 + 2 * len(layers))
    for species in ("pi0", "pic"):
        whole = rows["all", species]
        assert whole.resolution.value == pytest.approx(0.02, rel=0.15)
        assert whole.median.value == pytest.approx(1.0, abs=4.0 * whole.median.error)
        for name in ("without EMB1", "without TileBar0", "only EMB2"):
            assert rows[name, species].median.value == pytest.approx(whole.median.value, rel=1e-12)
            assert rows[name, species].resolution.value == pytest.approx(
                whole.resolution.value, rel=1e-12
            )
        for name in ("without EMB2", "only EMB1"):
            near = next(
                here
                for kind, _, here in rows_near(probe, [10.0], half_width=0.5)
                if kind == species
            )
            assert rows[name, species].median.value == pytest.approx(
                np.median(probe.cluster_e[near] / probe.e_true[near])
            )
            assert rows[name, species].resolution.value > 2.0 * whole.resolution.value


def test_too_few_clusters_give_no_row_and_no_measure(weights, rng):
    probe, network = make_probe(rng, weights, n=50), linear_network(weights)
    assert energy_measures(probe, [1e6]) == {}
    assert layer_dropout(network, probe, layer_regions("flat"), [1e6], rng=rng) == []
    with pytest.raises(ConfigError, match="0 measures"):
        permutation_importance(network, probe, layer_regions("flat"), {}, rng=rng)


def test_a_probe_holds_the_test_split_in_the_order_of_the_file(tmp_path, rng):
    write_sample(tmp_path / "a.root", make_sample(rng, 600))
    config = NetworkConfig(
        name="cnn",
        options={"head": "energy", "with_scalars": True},
        target=TargetConfig(),
        select=SELECTION,
        train=TrainConfig(loss="huber"),
    )
    model = build_model(
        "cnn", seed=1, filters=2, branch_width=4, merged_width=4, head="energy", with_scalars=True
    )
    network = Network(config, model, NO_RESULT, tmp_path)
    probe = read_probe(network, tmp_path / "a.root", rng=rng)
    assert len(probe.e_true) == len(probe.cluster_e) == len(probe.inputs["EMB2"]) > 60
    np.testing.assert_allclose(probe.inputs["scalars"][:, 0], np.log10(probe.cluster_e), rtol=1e-5)
    np.testing.assert_allclose(
        probe.e_true, probe.cluster_e * np.where(probe.is_em, 1.0, 1.3), rtol=1e-5
    )
    some = read_probe(network, tmp_path / "a.root", rng=rng, n_clusters=20)
    assert len(some.e_true) == 20
    place = [int(np.flatnonzero(probe.cluster_e == energy)[0]) for energy in some.cluster_e]
    np.testing.assert_array_equal(some.inputs["EMB1"], probe.inputs["EMB1"][place])
    measures = energy_measures(probe, [10.0], half_width=2.0, min_count=5)
    found = permutation_importance(
        network, probe, ring_regions("layers"), measures, rng=rng, n_bootstrap=5, n_repeats=1
    )
    assert all(
        np.isfinite(estimate.value) for lost in found.lost.values() for estimate in lost.values()
    )


def test_metrics_are_named_by_region_and_measure():
    regions = [region for region in ring_regions("flat") if region.name == "EMB2 core"]
    rise = {"iqr_pic_10gev": {"EMB2 core": Estimate(0.5, 0.1), "EMB1": Estimate(0.2, 0.1)}}
    ((name, value, error, unit, definition),) = importance_metrics(
        Importance({}, {}, rise), regions, model="cnn", where="test split"
    )
    assert (name, value, error, unit) == ("importance_emb2_core_iqr_pic_10gev", 0.5, 0.1, "")
    assert "EMB2 core" in definition


def test_the_table_has_a_line_for_each_set_of_layers():
    rows = [
        DropoutRow(name, "pic", energy, Estimate(1.0, 0.1), Estimate(0.2, 0.01), 50)
        for name in ("all", "only EMB1")
        for energy in (1.0, 10.0)
    ]
    header, lines = tabulate_dropout(rows)
    assert header == ["layers", "pic, 1 GeV", "pic, 10 GeV"]
    assert lines == [
        ["all", *["0.200 ± 0.010 (1.00)"] * 2],
        ["only EMB1", *["0.200 ± 0.010 (1.00)"] * 2],
    ]
