"""Auto-encoders scale pixels there and back, keep layers apart where they should, and learn to take
away what is the same in every image; chains of networks compute both.
"""

import keras
import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.photons.batches import PhotonBatches
from pfcalib.photons.denoise import (
    NAMES,
    DenoiserConfig,
    ScalePixels,
    build_denoiser,
    build_head,
    chain,
    denoiser_of,
    encoder_of,
    learned,
)
from pfcalib.photons.pairs import N_PIXELS, SLICES, Pairs
from pfcalib.photons.photonfit import fit_photons, p_photon
from pfcalib.photons.photonnets import PhotonCnnConfig, build_photon_cnn
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = {"latent": 8, "width": 16}


def test_scaled_pixels_come_back(rng):
    pixels = rng.normal(0.0, 5.0, (9, N_PIXELS)).astype(np.float32)
    scaled = ScalePixels()(pixels)
    np.testing.assert_allclose(ScalePixels(back=True)(scaled), pixels, rtol=1e-4, atol=1e-5)


def test_what_is_learned_of_energies_is_their_log_ratio(rng):
    config = DenoiserConfig(**SMALL, energy_weight=2.0)
    pixels = 1.0 + rng.random((3, N_PIXELS)).astype(np.float32)
    twice = learned(config, 2.0 * pixels) - learned(config, pixels)
    np.testing.assert_allclose(twice[:, N_PIXELS:], 2.0 * np.log(2.0), rtol=1e-5)
    assert twice.shape == (3, N_PIXELS + len(NAMES))
    model = build_denoiser(config)
    said = model({"pixels": pixels}).numpy()
    again = learned(config, denoiser_of(model)({"pixels": pixels}).numpy())
    np.testing.assert_allclose(said, again, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("joint", [False, True])
def test_one_for_each_layer_sees_one_layer(rng, joint):
    denoiser = denoiser_of(build_denoiser(DenoiserConfig(**SMALL, joint=joint)))
    pixels = rng.random((2, N_PIXELS)).astype(np.float32)
    other = pixels.copy()
    other[:, SLICES["EMB2"]] += 5.0
    moved = np.abs(denoiser({"pixels": pixels}) - denoiser({"pixels": other})).max(axis=0)
    assert (moved[SLICES["EMB2"]] > 0.0).any()
    assert (moved[SLICES["EMB1"]] > 0.0).any() == joint


def test_pileup_that_is_the_same_in_every_image_is_taken_away(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    n = 600
    signal = np.zeros((n, N_PIXELS), np.float32)
    signal[:, 200] = rng.exponential(5.0, n)
    one, flags = np.ones(n, np.float32), np.arange(n) % 2 == 0
    pairs = Pairs(
        np.arange(n), flags, np.arange(n), one, one, one, flags, signal,
        np.zeros_like(signal), np.full((1, n, N_PIXELS), 0.3, np.float32),
    )  # fmt: skip
    config = DenoiserConfig(**SMALL, skip=True)
    feeds = [
        PhotonBatches(
            pairs, lambda clean: learned(config, clean), mus=(20.0,), choose=(20.0,),
            batch_size=50, shuffle=shuffle,
        )
        for shuffle in (True, False)
    ]  # fmt: skip
    network = fit_photons(
        "toy", lambda: build_denoiser(config), *feeds,
        TrainConfig(learning_rate=0.01, epochs=8, loss="mse"), settings={}, export=False,
    )  # fmt: skip
    pixels = pairs.pixels((20.0,), 20.0)
    left = denoiser_of(network.model)({"pixels": pixels}).numpy() - signal
    assert np.abs(left).mean() < 0.15 * 0.3
    assert not network.path.exists()


def test_a_chain_computes_one_network_on_the_other(rng):
    pixels = rng.exponential(size=(5, N_PIXELS)).astype(np.float32)
    options = {"filters": 2, "convolutions": 1, "branch_width": 4, "widths": (4,)}
    cnn = build_photon_cnn(PhotonCnnConfig(**options))
    model = build_denoiser(DenoiserConfig(**SMALL))
    denoiser, encoder = denoiser_of(model), encoder_of(model)
    both = chain(denoiser, cnn)
    np.testing.assert_allclose(
        p_photon(both, pixels), p_photon(cnn, denoiser({"pixels": pixels}).numpy()), atol=1e-6
    )
    head = build_head(encoder.output.shape[1])
    expected = head(encoder({"pixels": pixels})).numpy()[:, 1]
    np.testing.assert_allclose(p_photon(chain(encoder, head), pixels), expected, atol=1e-6)
    assert isinstance(chain(encoder, head), keras.Model)


def test_too_few_latent_numbers_are_refused():
    with pytest.raises(ConfigError, match="latent"):
        DenoiserConfig(latent=1)
