"""The packaged Geant4 pions as a sample of clusters: what nothing here was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.read import PathLike
from pfcalib.samples.showerfile import read_showers
from pfcalib.samples.write import write_sample
from pfcalib.simulation.digitise import NOISE_SETTINGS
from pfcalib.simulation.produce import cluster_showers

PHOTON = 22


def geant4_sample(folder: PathLike, *, seed: int, noise: str = "nominal") -> Path:
    """Write the clusters of the packaged Geant4 pions, with noise added, as a ROOT sample; returns
    its path.

    There is no calibration truth in it: such columns are zero.

    Parameters
    ----------
    folder : path-like
        Where the file goes; made if it does not exist.
    seed : int
        Of the noise.
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.

    Raises
    ------
    ConfigError
        If the setting is unknown.
    """
    if noise not in NOISE_SETTINGS:
        raise ConfigError(f"noise must be one of {', '.join(NOISE_SETTINGS)}, not {noise!r}")
    showers, metadata = read_showers(packaged_sample("geant4_pions"), WINDOW)
    pions = showers.select(showers.pdg_id != PHOTON)
    rng = np.random.default_rng(seed)
    path = Path(folder) / f"geant4_pions-{noise}-{seed}.root"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sample(
        path,
        cluster_showers(
            pions, WINDOW, rng, generator=metadata["generator"], noise=NOISE_SETTINGS[noise]
        ),
    )
    return path
