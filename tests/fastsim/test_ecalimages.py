"""Images hold the photons that were shot, where they were shot, whoever makes them."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.ecalimages import (
    CHUNK,
    N_CELLS,
    EcalConfig,
    image_moments,
    kept_images,
    simulate_images,
)


@pytest.fixture(scope="module")
def photons():
    return simulate_images(EcalConfig(n_images=300, e_range=(5.0, 20.0)), 0)


def test_images_hold_the_energy(photons):
    response = photons.images.sum(axis=(1, 2)) / photons.energy
    assert 0.8 < np.median(response) < 1.1
    assert photons.images.shape == (300, N_CELLS, N_CELLS)


def test_the_centre_is_where_the_photon_went(photons):
    moments = image_moments(photons.images)
    for axis, place in (("0", photons.at_eta), ("1", photons.at_phi)):
        away = moments[f"mean_{axis}"] - place
        assert abs(np.median(away)) < 0.15
        assert np.polyfit(place, moments[f"mean_{axis}"], 1)[0] == pytest.approx(1.0, abs=0.2)


def test_moments_of_a_known_image():
    image = np.zeros((1, 6, 6))
    image[0, 3, 3], image[0, 5, 3] = 3.0, 1.0
    found = {name: float(values[0]) for name, values in image_moments(image).items()}
    assert found == pytest.approx(
        {
            "sum": 4.0, "mean_0": 0.5, "width_0": np.sqrt(0.75), "mean_1": 0.0, "width_1": 0.0,
            "across": 0.0, "peak": 0.75, "lit": 2.0,
        }
    )  # fmt: skip


def test_two_processes_make_what_one_makes(tmp_path, monkeypatch):
    config = EcalConfig(n_images=CHUNK + 20, e_range=(0.2, 0.3))
    found = []
    for n in (1, 2):
        monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / str(n)))
        found.append(kept_images(config, n_processes=n))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    assert len(found[0].energy) == CHUNK + 20


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"up to 0\.7"):
        EcalConfig(eta_max=2.0)
