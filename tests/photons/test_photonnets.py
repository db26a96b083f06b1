"""The networks have the published size, scale their images as they say, and an export computes what
the network does; rejections are those of the general definition.
"""

import keras
import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.metrics.roc import rejection
from pfcalib.photons.batches import PhotonBatches
from pfcalib.photons.pairs import N_PIXELS, SLICES, Pairs
from pfcalib.photons.photonfit import fit_photons, p_photon, rejections
from pfcalib.photons.photonnets import PhotonCnnConfig, build_photon_cnn
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TINY = {"filters": 2, "convolutions": 1, "branch_width": 4, "widths": (4,)}


def test_the_default_has_about_the_published_number_of_parameters():
    assert build_photon_cnn().count_params() == pytest.approx(1.4e6, rel=0.05)


def test_the_published_network_does_not_see_the_energy_of_a_layer_and_the_other_does(rng):
    pixels = rng.exponential(size=(4, N_PIXELS)).astype(np.float32)
    louder = pixels.copy()
    louder[:, SLICES["EMB2"]] *= 3.0
    for energies in (False, True):
        keras.utils.set_random_seed(1)
        model = build_photon_cnn(PhotonCnnConfig(**TINY, energies=energies))
        same = np.allclose(p_photon(model, pixels), p_photon(model, louder), atol=1e-5)
        assert same != energies


def test_the_two_outputs_are_the_probabilities_of_two_classes(rng):
    pixels = rng.exponential(size=(9, N_PIXELS)).astype(np.float32)
    model = build_photon_cnn(PhotonCnnConfig(**TINY, with_mu=True))
    both = model({"pixels": pixels, "mu": np.full((9, 1), 20.0, np.float32)}).numpy()
    np.testing.assert_allclose(both.sum(axis=1), 1.0, atol=1e-6)


def test_a_network_learns_is_exported_and_found_again(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    n = 400
    is_photon = np.arange(n) % 2 == 0
    clean = rng.normal(0.0, 0.05, (n, N_PIXELS)).astype(np.float32)
    clean[:, SLICES["EMB1"]] += np.where(is_photon, 0.2, 0.0)[:, None].astype(np.float32)
    one = np.ones(n, np.float32)
    pairs = Pairs(
        np.arange(n), is_photon, np.arange(n), one, one, one, is_photon, clean,
        np.zeros_like(clean), np.zeros((0, n, N_PIXELS), np.float32),
    )  # fmt: skip
    classes = np.column_stack([~is_photon, is_photon]).astype(np.float32)
    said = []
    for _ in range(2):
        network = fit_photons(
            "tiny",
            lambda: build_photon_cnn(PhotonCnnConfig(**TINY, energies=True)),
            PhotonBatches(pairs, classes, mus=(), choose=(0.0,), batch_size=50),
            PhotonBatches(pairs, classes, mus=(), choose=(0.0,), shuffle=False),
            TrainConfig(learning_rate=0.01, epochs=3),
            settings={"inputs": "toy"},
            say=said.append,
        )
    assert len(said) == 3  # the second call found it
    score = p_photon(network.model, clean)
    assert score[is_photon].min() > score[~is_photon].max()
    assert check_stored_model(network.path).passed


def test_rejections_are_the_general_ones_and_copies_widen_their_error(rng):
    n = 4000
    is_photon = np.arange(n) < n // 2
    score = rng.normal(size=n) + is_photon
    alone = rejections(score, is_photon, np.arange(n), [0.5, 0.9], seed=1)
    for k, efficiency in enumerate((0.5, 0.9)):
        one = rejection(score, is_photon, em_efficiency=efficiency)
        assert alone[0, k] == pytest.approx(one.value)
        assert alone[1:, k].std() == pytest.approx(one.error, rel=0.3)
    copied = rejections(
        np.repeat(score, 4), np.repeat(is_photon, 4), np.repeat(np.arange(n), 4), [0.9], seed=1
    )
    assert copied[0, 0] == pytest.approx(alone[0, 1])
    assert copied[1:, 0].std() == pytest.approx(alone[1:, 1].std(), rel=0.3)
