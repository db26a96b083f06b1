"""Networks on pairs of images, trained once, kept and exported, and what they are worth: rejection
of fakes with errors by bootstrap over collisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import cache_folder, cache_key, locked
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx, predict
from pfcalib.metrics.bootstrap import N_BOOTSTRAP
from pfcalib.photons.batches import PhotonBatches
from pfcalib.photons.pairs import F32
from pfcalib.photons.photonnets import NORMALISATION
from pfcalib.training.fit import Say, TrainConfig, TrainResult, fit_model

F64 = NDArray[np.float64]
N_REFERENCE = 300  # images that check an export


class PhotonNetwork(NamedTuple):
    """A trained network."""

    model: Any  # keras.Model with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file


def fit_photons(
    name: str,
    build: Callable[[], keras.Model],
    training: PhotonBatches,
    held_out: PhotonBatches,
    train: TrainConfig,
    *,
    settings: Mapping[str, Any],
    export: bool = True,
    say: Say = print,
) -> PhotonNetwork:
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    name : str
        Of the file.
    build : callable
        Makes the untrained network.
    training, held_out : PhotonBatches
    train : TrainConfig
        Its seed is that of the first weights too.
    settings : mapping
        JSON values: all that decides on network and images, the key of the cache; their content
        among it.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    choices = {
        "choose": training.choose, "unhealthy": training.unhealthy, "faults": training.faults,
        "n": [training.n_clusters, held_out.n_clusters],
    }  # fmt: skip
    told = {**settings, "choices": choices, "train": asdict(train)}
    key = cache_key("features", "training", name=name, **told)
    path = cache_folder() / "models" / f"{name}-{key}" / f"{name}.onnx"
    with locked(path.parent):
        keras.utils.set_random_seed(train.seed)
        model = build()
        result = fit_model(model, training, held_out, train, out_dir=path.parent, say=say)
        if export and not contract_path(path).exists():  # it is written last
            export_photons(model, path, held_out, told | {"best_epoch": result.best_epoch})
    return PhotonNetwork(model, result, path)


def export_photons(
    model: keras.Model, path: Path, held_out: PhotonBatches, told: Mapping[str, Any]
) -> None:
    """Write a network on pixels with its contract, see `deploy.export.export_onnx`.

    Parameters
    ----------
    model : keras.Model
    path : path
        Ending in .onnx.
    held_out : PhotonBatches
        The first of these are the reference images.
    told : mapping
        JSON values: how it was trained.
    """
    batches = [
        held_out[i][0] for i in range(min(len(held_out), -(-N_REFERENCE // held_out.batch_size)))
    ]
    inputs = {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}
    export_onnx(
        model, path, inputs={k: v[:N_REFERENCE] for k, v in inputs.items()}, kind="photon_window",
        training=told, normalisation=NORMALISATION,
    )  # fmt: skip


def p_photon(model: keras.Model, pixels: F32, *, mu: float | None = None) -> F64:
    """Probability of a photon by a CNN, shape (n,).

    Parameters
    ----------
    model : keras.Model
    pixels : ndarray, shape (n, N_PIXELS), GeV
    mu : float, optional
        Where the network is told.
    """
    inputs = {"pixels": pixels}
    if mu is not None:
        inputs["mu"] = np.full((len(pixels), 1), mu, np.float32)
    return predict(model, inputs)[:, 1].astype(np.float64)


def rejections(
    score: ArrayLike,
    is_photon: ArrayLike,
    collision: ArrayLike,
    efficiencies: Sequence[float],
    *,
    seed: int,
    n_resamples: int = N_BOOTSTRAP,
) -> F64:
    """One over the share of fakes that pass the cut which keeps a share of the photons.

    Parameters
    ----------
    score : array_like, shape (n,)
        The larger, the more like a photon.
    is_photon, collision : array_like, shape (n,)
        Resamples hold whole collisions, since copies of a fake are alike.
    efficiencies : sequence of float
    seed : int
        Scores of the same candidates with the same seed have the same resamples, so that ratios
        stay paired.

    Returns
    -------
    ndarray, shape (1 + n_resamples, n_efficiencies)
        First of all candidates, then of each resample; where no fake passes, as if one did.

    Examples
    --------
    >>> found = rejections([3, 2, 1, 2], [1, 1, 0, 0], range(4), [0.5, 1.0], seed=1, n_resamples=1)
    >>> found[0].tolist()
    [2.0, 2.0]
    """
    order = np.argsort(-np.asarray(score, np.float64), kind="stable")
    values = np.asarray(score, np.float64)[order]
    photon = np.asarray(is_photon, np.bool_)[order]
    names, place = np.unique(np.asarray(collision)[order], return_inverse=True)
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of each score
    rng = np.random.default_rng(seed)
    found = np.empty((1 + n_resamples, len(efficiencies)))
    for k in range(1 + n_resamples):
        times = rng.integers(len(names), size=len(names)) if k else np.arange(len(names))
        weight = np.bincount(times, minlength=len(names))[place]
        of_photons, of_fakes = (np.cumsum(weight * side)[last] for side in (photon, ~photon))
        wanted = np.asarray(efficiencies) * of_photons[-1] - 1e-9
        cut = np.searchsorted(of_photons, wanted)
        found[k] = np.maximum(of_fakes[-1], 1) / np.maximum(of_fakes[cut], 1)
    return found
