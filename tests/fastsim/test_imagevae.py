"""Autoencoders, flows and adversaries learn small toys whose distributions are known."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.fastsim.imagegan import (
    FEATURES,
    LOGIT,
    GanConfig,
    build_adversaries,
    fit_gan,
    spread_of,
)
from pfcalib.fastsim.imagevae import (
    VaeConfig,
    _half_deviance,
    dispersion_of,
    draw_pixels,
    fit_image_vae,
)
from pfcalib.fastsim.tableflow import TableFlowConfig, fit_table_flow
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def quick(loss, epochs, rate=3e-3, batch=256, **options):
    return TrainConfig(
        learning_rate=rate, batch_size=batch, epochs=epochs, patience=epochs, loss=loss,
        schedule="cosine_steps", **options,
    )  # fmt: skip


def quiet(line):
    pass


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))


def test_pixels_have_the_variance_of_their_family(rng):
    rates = np.full((200_000, 2), [0.3, 20.0])
    for power, dispersion in ((1.0, 1.0), (1.0, 0.5), (1.5, 0.4)):
        config = VaeConfig(power=power, dispersion=dispersion)
        drawn = draw_pixels(rates, config, rng).astype(np.float64)
        assert drawn.mean(axis=0) == pytest.approx(rates[0], rel=0.02)
        assert drawn.var(axis=0) == pytest.approx(dispersion * rates[0] ** power, rel=0.03)
        assert dispersion_of(drawn, rates, power) == pytest.approx(dispersion, rel=0.03)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_deviance_is_least_at_the_mean_and_0_at_the_value(power, rng):
    values = rng.poisson(3.0, 500).astype(np.float32)
    rates = np.linspace(2.0, 4.0, 201)
    deviance = [np.mean(_half_deviance(values, np.float32(np.log(r)), power)) for r in rates]
    assert rates[np.argmin(deviance)] == pytest.approx(values.mean(), abs=0.02)
    own = _half_deviance(values, np.log(np.maximum(values, 1e-12)), power)
    assert np.asarray(own)[values > 0] == pytest.approx(0.0, abs=1e-4)


def line(rng, n):
    """y about 2 x with a width of 0.6 where x is above 0 and of 0.2 elsewhere."""
    x = rng.uniform(-1.0, 1.0, (n, 1))
    return 2.0 * x + np.where(x > 0.0, 0.6, 0.2) * rng.standard_normal(x.shape), x


def test_a_flow_of_a_table_learns_a_line(rng):
    config = TableFlowConfig(width=32, n_blocks=2, n_steps=6, train=quick("mse", 15, batch=100))
    data = line(rng, 5000), line(rng, 1000)
    flow = fit_table_flow(*data, config, name="line", inputs="x", say=quiet)
    assert check_stored_model(flow.kept.path).passed
    for at, width in ((-0.6, 0.2), (0.6, 0.6)):
        drawn = flow.generate(np.full((2000, 1), at), rng)
        assert drawn.mean() == pytest.approx(2.0 * at, abs=0.1)
        assert drawn.std() == pytest.approx(width, rel=0.4)


def photons(rng, n):
    """Counts in 6 pixels, of a gain that fluctuates and a mean that grows with the energy."""
    log_e = rng.uniform(2.0, 4.0, (n, 1))
    gain = rng.gamma(10.0, 0.1, (n, 1))
    counts = rng.poisson(np.exp(log_e) * gain * np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.0]))
    return counts.astype(np.uint16), log_e


def test_an_autoencoder_learns_counts_that_fluctuate_together(rng):
    training, held_out = photons(rng, 6000), photons(rng, 1000)
    config = VaeConfig(
        n_latent=2, widths=(32, 32), train=quick("mae", 12, clip_norm=100.0),
        flow=TableFlowConfig(width=32, n_blocks=1, n_steps=4, train=quick("mse", 6)),
    )  # fmt: skip
    vae = fit_image_vae(training, held_out, config, name="toy", inputs="x", say=quiet)
    assert check_stored_model(vae.kept.path).passed
    log_e = np.full((4000, 1), 3.0)
    n = 0.9 * np.exp(3.0)
    for by_flow in (True, False):
        total = vae.generate(log_e, rng, by_flow=by_flow).sum(axis=1)
        assert total.mean() == pytest.approx(n, rel=0.06)
        # Poisson and a gain of width sqrt(0.1)
        assert total.var() == pytest.approx(n + 0.1 * n**2, rel=0.35)
    again = fit_image_vae(training, held_out, config, name="toy", inputs="x", say=quiet)
    one, other = (of.generate(log_e[:9], np.random.default_rng(2)) for of in (vae, again))
    assert np.array_equal(one, other)


def test_adversaries_learn_the_mean_of_a_table(rng):
    def table(n):
        x = rng.uniform(-1.0, 1.0, (n, 1))
        return (x + 0.2 * rng.standard_normal((n, 2))).astype(np.float32), x

    config = GanConfig(n_noise=4, width=32, channels=0, train=quick("mse", 12, 2e-3, ema=0.9))
    gan = fit_gan(table(4000), table(500), config, name="toy", inputs="x", say=quiet)
    assert check_stored_model(gan.kept.path).passed
    for at in (-0.6, 0.6):
        drawn = gan.generate(np.full((500, 1), at), rng)
        assert drawn.mean() == pytest.approx(at, abs=0.25)
        assert drawn.std(axis=0).min() > 0.02


@pytest.mark.parametrize("side", [12, 30, 44])
def test_convolutions_fit_any_side(side):
    config = GanConfig(n_noise=3, width=8, channels=4)
    model = build_adversaries(side * side, 2, config)
    generator, judge = (model.get_layer(name) for name in ("generator", "discriminator"))
    noise, condition = np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)
    image = keras.ops.convert_to_numpy(generator({"noise": noise, "condition": condition}))
    assert image.shape == (5, side * side)
    assert np.isfinite(image).all()
    assert image.std() > 0.0
    told = judge({"image": image, "condition": condition})
    assert (told[LOGIT].shape, told[FEATURES].shape) == ((5, 1), (5, 8))


def test_the_spread_is_that_of_the_group(rng):
    group = np.repeat([0, 1], 4000)
    images = rng.standard_normal((8000, 3)) * np.where(group, 3.0, 1.0)[:, None]
    spread = spread_of(images, rng.random(8000), group)[:, 0]
    assert spread.max() == pytest.approx(1.0)
    assert spread[group == 0] == pytest.approx(1.0 / 3.0, rel=0.15)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="power"):
        VaeConfig(power=2.5)
    with pytest.raises(ConfigError, match="sizes"):
        GanConfig(n_noise=0)
