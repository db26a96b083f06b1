"""Generators give back the distributions that they have learnt."""

import numpy as np
import pytest
import tensorflow as tf

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.fastsim.flowmatching import STEPS, FlowConfig, fit_flow, load_flow
from pfcalib.fastsim.generators import FrozenShowers, Parametrisation
from pfcalib.fastsim.pca import PcaConfig, fit_pca
from pfcalib.fastsim.vae import VaeConfig, fit_vae
from pfcalib.fastsim.voxels import BINNINGS, Voxels
from pfcalib.fastsim.wgan import CRITICS, SLOPE, WganConfig, build_wgan, fit_wgan
from pfcalib.samples.layouts.calochallenge import Binning, VoxelLayer
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TOY = Binning("toy", 22, tuple(VoxelLayer(sampling, (0, 10, 20, 40), 4) for sampling in (1, 2, 3)))
SHAPE = np.tile([0.6, 0.3, 0.1], 12) / 4.0


def toy(n, seed, energies=(1.0, 4.0)):
    """Depths of one Gaussian quantity, of which two layers share the energy, and 40 hits a GeV."""
    rng = np.random.default_rng(seed)
    energy = np.tile(energies, n // len(energies))
    share = 1.0 / (1.0 + np.exp(-0.7 * rng.standard_normal(n)))
    total = energy * (1.0 + 0.1 / np.sqrt(energy) * rng.standard_normal(n))
    layers = np.column_stack([0.9 * share, 0.9 * (1.0 - share), np.full(n, 0.1)]) * total[:, None]
    showers = np.zeros((n, TOY.n_voxels))
    for i in range(3):
        hits = rng.poisson(np.maximum(40.0 * layers[:, i], 0.1)) + 1
        place = slice(12 * i, 12 * (i + 1))
        drawn = rng.multinomial(hits, SHAPE[place])
        showers[:, place] = drawn * (layers[:, i] / hits)[:, None]
    return Voxels(TOY, energy, showers.astype(np.float32))


def require_alike(found, true, *, share, hits):
    for energy in np.unique(true.energy):
        one, two = (of.take(of.energy == energy) for of in (found, true))
        totals = [of.layers.sum(axis=1) for of in (one, two)]
        assert totals[0].mean() == pytest.approx(totals[1].mean(), rel=0.02)
        assert totals[0].std() == pytest.approx(totals[1].std(), rel=share)
        shares = [np.corrcoef((of.layers / of.layers.sum(axis=1)[:, None]).T) for of in (one, two)]
        np.testing.assert_allclose(shares[0][0, 1], shares[1][0, 1], atol=share)
        core = [of.showers[:, 12:24:3].sum(axis=1) / of.layers[:, 1] for of in (one, two)]
        assert core[0].mean() == pytest.approx(core[1].mean(), rel=0.05)
        assert core[0].std() == pytest.approx(core[1].std(), rel=hits)


def test_principal_components_give_layers_and_spread_of_a_toy_made_of_hits():
    training, test = toy(6000, 1), toy(6000, 2)
    made = fit_pca(training, PcaConfig(hits="spread")).generate(
        test.energy, np.random.default_rng(3)
    )
    require_alike(made, test, share=0.15, hits=0.15)


def test_hits_are_as_many_as_the_resolution_wants():
    made = fit_pca(toy(4000, 1)).generate(np.full(4000, 4.0), np.random.default_rng(3))
    layer = made.layers[:, 1]
    chosen = np.abs(layer - 2.0) < 0.2
    share = made.showers[chosen, 12] / layer[chosen]
    # of one voxel: p (1 - p) / n with n = 1 / (0.101^2 / E + 0.002^2)
    n = 2.0 / (0.101**2 + 2.0 * 0.002**2)
    assert share.var() == pytest.approx(0.15 * 0.85 / n, rel=0.15)


def test_in_between_the_response_is_that_of_the_mean_curve():
    training = toy(4000, 1)
    low = training.energy == 1.0
    training.showers[low] *= 0.8  # a response that rises with the energy
    made = fit_pca(training).generate(np.full(4000, 2.0), np.random.default_rng(3))
    response = made.layers.sum(axis=1) / 2.0
    assert response.mean() == pytest.approx(0.9, abs=0.01)


def test_too_few_showers_are_told():
    with pytest.raises(ConfigError, match="showers of 1 GeV"):
        fit_pca(toy(20, 1))
    with pytest.raises(ConfigError, match="n_bins"):
        PcaConfig(n_bins=0)


def test_the_flow_learns_the_toy_and_its_files_agree_and_are_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    training, held_out, test = toy(2000, 1), toy(200, 2), toy(2000, 3)
    config = FlowConfig(
        widths=(48, 48, 64), n_blocks=2, n_steps=(6, 4, 3), train=TrainConfig(
            learning_rate=3e-3, batch_size=100, epochs=12, patience=12, schedule="cosine_steps",
            loss="mse", ema=0.9,
        ),
    )  # fmt: skip
    flow = fit_flow(training, held_out, config, inputs="toy", say=lambda line: None)
    made = flow.generate(test.energy, np.random.default_rng(4))
    require_alike(made, test, share=0.3, hits=0.3)
    # whatever the energy of a layer is, rings share it as the hits do
    inner = [of.showers[:, 13:24:3].sum(axis=1) / of.layers[:, 1] for of in (made, test)]
    assert inner[0].mean() == pytest.approx(inner[1].mean(), rel=0.05)
    for step in STEPS:
        assert check_stored_model(flow.kept[step].path).passed
    said = []
    again = fit_flow(training, held_out, config, inputs="toy", say=said.append)
    assert not said
    assert np.array_equal(
        again.generate(test.energy, np.random.default_rng(4)).showers, made.showers
    )
    stored = load_flow(flow.save(tmp_path / "kept"))
    assert np.array_equal(
        stored.generate(test.energy, np.random.default_rng(4)).showers, made.showers
    )
    # beyond the energies of the training showers are those of the nearest one, scaled
    beyond = stored.generate([8.0], np.random.default_rng(5)).layers
    nearest = stored.generate([4.0], np.random.default_rng(5)).layers
    np.testing.assert_allclose(beyond, 2.0 * nearest, rtol=1e-5)
    (tmp_path / "kept" / "tables.npz").write_bytes(b"no tables")
    with pytest.raises(BadFileError, match=r"tables\.npz: no tables of scores"):
        load_flow(tmp_path / "kept")


def test_frozen_showers_are_those_of_the_nearest_energies_scaled():
    voxels = toy(400, 1)
    made = FrozenShowers(voxels).generate(
        np.array([0.5, 2.0, 4.0, 9.0] * 500), np.random.default_rng(2)
    )
    shares = voxels.showers / voxels.energy[:, None]
    for energy, known in ((0.5, 1.0), (4.0, 4.0), (9.0, 4.0)):
        found = made.showers[made.energy == energy] / energy
        allowed = shares[voxels.energy == known]
        distance = np.abs(found[:50, None] - allowed[None]).max(axis=2).min(axis=1)
        assert distance.max() < 1e-6
    # half way in ln E each of the two is as frequent
    found = made.showers[made.energy == 2.0] / 2.0
    distance = np.abs(found[:, None] - shares[voxels.energy == 1.0][None]).max(axis=2)
    assert np.mean(distance.min(axis=1) < 1e-6) == pytest.approx(0.5, abs=4.0 * 0.5 / 500**0.5)


def test_the_parametrisation_gives_a_shower_of_each_energy():
    binning = BINNINGS["pion"]
    made = Parametrisation(binning, 1e-3).generate([2.0, 8.0], np.random.default_rng(1))
    assert made.energy.tolist() == [2.0, 8.0]
    assert made.showers[made.showers > 0.0].min() >= np.float32(1e-3)


def test_the_autoencoder_gives_total_and_layers_of_the_toy_and_its_file_agrees(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    training, held_out, test = toy(2000, 1), toy(200, 2), toy(2000, 3)
    config = VaeConfig(
        width=64, n_layers=2, n_latent=4, latent=0.06, train=TrainConfig(
            learning_rate=3e-3, batch_size=100, epochs=20, patience=20, schedule="cosine_steps",
            loss="mse",
        ),
    )  # fmt: skip
    vae = fit_vae(training, held_out, config, inputs="toy", say=lambda line: None)
    made = vae.generate(test.energy, np.random.default_rng(4))
    for energy in np.unique(test.energy):
        one, two = (of.take(of.energy == energy).layers for of in (made, test))
        assert one.sum(axis=1).mean() == pytest.approx(two.sum(axis=1).mean(), rel=0.05)
        np.testing.assert_allclose(one.mean(axis=0), two.mean(axis=0), atol=0.06 * energy)
        # the share of the layers is its largest quantity, so it is not lost
        assert np.corrcoef(one[:, 0], one[:, 1])[0, 1] < -0.5
    assert check_stored_model(vae.kept.path).passed


def test_adversaries_give_total_and_layers_of_the_toy_at_both_energies(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    training, held_out, test = toy(2000, 1), toy(400, 2), toy(2000, 3)
    config = WganConfig(
        width=64, n_layers=2, n_latent=16, train=TrainConfig(
            learning_rate=2e-3, batch_size=64, epochs=40, patience=40, schedule="cosine_steps",
            loss="mse", ema=0.98,
        ),
    )  # fmt: skip
    gan = fit_wgan(training, held_out, config, inputs="toy", say=lambda line: None)
    made = gan.generate(test.energy, np.random.default_rng(4))
    width = {}
    for energy in np.unique(test.energy):
        one, two = (of.take(of.energy == energy).layers for of in (made, test))
        totals = [of.sum(axis=1) for of in (one, two)]
        assert totals[0].mean() == pytest.approx(totals[1].mean(), rel=0.04)
        assert totals[0].std() == pytest.approx(totals[1].std(), rel=0.4)
        np.testing.assert_allclose(one.mean(axis=0), two.mean(axis=0), atol=0.04 * energy)
        np.testing.assert_allclose(one[:, :2].std(axis=0), two[:, :2].std(axis=0), rtol=0.25)
        assert np.corrcoef(one[:, 0], one[:, 1])[0, 1] < -0.6
        width[energy] = totals[0].std() / energy
    assert width[1.0] > 1.3 * width[4.0]  # 2 in truth
    assert check_stored_model(gan.kept.path).passed
    said = []
    again = fit_wgan(training, held_out, config, inputs="toy", say=said.append)
    assert not said
    assert np.array_equal(
        again.generate(test.energy, np.random.default_rng(4)).showers, made.showers
    )


def test_a_critic_as_steep_as_it_may_be_pays_no_penalty():
    config = WganConfig(n_layers=1, width=8, n_latent=2, penalty=3.0)
    model = build_wgan(TOY, config)
    rng = np.random.default_rng(1)
    true = tf.constant(rng.random((50, 4 + TOY.n_voxels)), tf.float32)
    inputs = {name: tf.ones((50, of.shape[1])) for name, of in model.input.items()}
    inputs["between"] = tf.constant(rng.random((50, 1)), tf.float32)
    for slope in (0.0, 1.0, 3.0):
        # leaky(x) - leaky(-x) is (1 + SLOPE) x, a straight line
        for name in CRITICS:
            critic = model.get_layer(name)
            look, value = critic.get_layer("look0"), critic.get_layer("value")
            kernel = np.zeros(look.kernel.shape, np.float32)
            kernel[0, :2] = 1.0, -1.0
            look.set_weights([kernel, np.zeros(8, np.float32)])
            weights = np.zeros((8, 1), np.float32)
            weights[:2, 0] = np.array([1.0, -1.0]) * slope / (1.0 + SLOPE)
            value.set_weights([weights, np.zeros(1, np.float32)])
        made = model.pictures(inputs, true)
        for (loss, _), (real, fake) in zip(model.losses(inputs, true), made, strict=False):
            gap = slope * float(np.mean(fake[:, 0]) - np.mean(real[:, 0]))
            assert float(loss) == pytest.approx(gap + 3.0 * (slope - 1.0) ** 2, abs=1e-4)
