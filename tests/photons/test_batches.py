"""Reflections and faults do what they say, and batches pair an image with the same one without
pile-up.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.photons.batches import FAULTS, REFLECTIONS, PhotonBatches, reflection, spoil
from pfcalib.photons.pairs import N_PIXELS, SHAPES, Pairs, image
from pfcalib.photons.showershapes import SHAPES_NAMES, shower_shapes

MUS = (20.0, 200.0)


@pytest.fixture
def pairs(rng):
    n = 64
    signal = np.repeat(1.0 + np.arange(n, dtype=np.float32)[:, None], N_PIXELS, axis=1)
    noise = np.repeat(1e-3 * np.arange(n, dtype=np.float32)[:, None], N_PIXELS, axis=1)
    pileup = np.stack([np.full((n, N_PIXELS), mu, np.float32) for mu in MUS])
    one = np.ones(n, np.float32)
    flags = rng.random(n) < 0.5
    return Pairs(np.arange(n), flags, np.arange(n), one, one, one, flags, signal, noise, pileup)


def test_a_reflection_undoes_itself_and_keeps_the_layers(rng):
    pixels = rng.random((3, N_PIXELS)).astype(np.float32)
    for places in REFLECTIONS:
        np.testing.assert_array_equal(pixels[:, places][:, places], pixels)
    mirrored = pixels[:, reflection(eta=True, phi=False)]
    for name in SHAPES:
        np.testing.assert_array_equal(image(mirrored, name), image(pixels, name)[:, ::-1])


def test_shapes_do_not_change_with_a_reflection_in_phi(rng):
    pixels = rng.exponential(size=(5, N_PIXELS)).astype(np.float32)
    mirrored = pixels[:, reflection(eta=False, phi=True)]
    np.testing.assert_allclose(shower_shapes(mirrored), shower_shapes(pixels), rtol=1e-5)
    both = shower_shapes(pixels[:, reflection(eta=True, phi=False)])
    column = SHAPES_NAMES.index("R_eta")
    np.testing.assert_allclose(both[:, column], shower_shapes(pixels)[:, column], rtol=1e-5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_takes_energy_and_adds_none(rng, fault):
    pixels = 1.0 + rng.exponential(size=(200, N_PIXELS)).astype(np.float32)
    before = pixels.copy()
    spoilt = spoil(pixels, rng, faults=(fault,))
    np.testing.assert_array_equal(pixels, before)
    middle = image(spoilt, "EMB2").reshape(200, -1)
    assert ((middle == 0.0).sum(axis=1) >= 1).all()
    assert (spoilt.sum(axis=1) < pixels.sum(axis=1)).all()
    if fault != "shifted":
        assert ((spoilt == pixels) | (spoilt == 0.0)).all()


def test_a_shifted_image_is_a_shifted_image(rng):
    pixels = 1.0 + rng.exponential(size=(50, N_PIXELS)).astype(np.float32)
    for before, after in zip(
        image(pixels, "EMB2"), image(spoil(pixels, rng, faults=("shifted",)), "EMB2"), strict=True
    ):
        found = [
            np.array_equal(after[1:], before[:-1]), np.array_equal(after[:-1], before[1:]),
            np.array_equal(after[:, 1:], before[:, :-1]),
            np.array_equal(after[:, :-1], before[:, 1:]),
        ]  # fmt: skip
        assert sum(found) == 1


def test_an_unknown_fault_is_refused(rng):
    with pytest.raises(ConfigError, match="on fire"):
        spoil(np.zeros((1, N_PIXELS), np.float32), rng, faults=("on fire",))


def test_a_batch_pairs_each_image_with_the_same_one_without_pileup(pairs):
    batches = PhotonBatches(
        pairs, np.copy, mus=MUS, choose=(0.0, 20.0, 200.0), with_mu=True, batch_size=50
    )
    seen = []
    for i in range(len(batches)):
        inputs, answers, weights = batches[i]
        assert (weights == 1.0).all()
        np.testing.assert_allclose(
            inputs["pixels"] - answers, inputs["mu"] + 0 * answers, atol=1e-4
        )
        seen.append(inputs["mu"].ravel())
        # noise of another: candidate k has signal 1 + k and noise of k / 1000
        rows = batches.order[i * 50 : i * 50 + 50]
        np.testing.assert_allclose(np.floor(answers[:, 0] + 1e-4), 1 + rows)
        assert (np.round(1e3 * (answers[:, 0] % 1.0)) != rows).mean() > 0.8
    assert set(np.concatenate(seen)) == {0.0, 20.0, 200.0}


def test_epochs_differ_for_training_and_not_for_validation(pairs):
    for shuffle in (True, False):
        batches = PhotonBatches(
            pairs, np.copy, mus=MUS, choose=MUS, unhealthy=0.5, shuffle=shuffle, batch_size=64
        )
        first = batches[0][0]["pixels"]
        np.testing.assert_array_equal(first, batches[0][0]["pixels"])
        batches.on_epoch_end()
        assert np.array_equal(first, batches[0][0]["pixels"]) != shuffle
        batches.set_epoch(0)
        np.testing.assert_array_equal(first, batches[0][0]["pixels"])
