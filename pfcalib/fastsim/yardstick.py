"""How far generated showers are from the true ones, as the CaloChallenge measures it
(arXiv:2410.21611): quantities of high and of low level, classifiers on them, separations of
histograms; and whether a generator repeats showers that it was trained on.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pfcalib.errors import ConfigError
from pfcalib.fastsim.voxels import Voxels, layer_sums
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.fidelity import tell_apart
from pfcalib.metrics.frechet import separation
from pfcalib.metrics.roc import auc
from pfcalib.samples.layouts.calochallenge import NAMES, voxel_cells

F64 = NDArray[np.float64]
N_BINS = 30  # of a histogram
LEAST = 1e-5  # GeV, added to energies of layers before their logarithm, as in the challenge
SPLIT = (0.6, 0.2)  # of showers, for training and validation of a classifier


def high_level(voxels: Voxels) -> dict[str, F64]:
    """Quantities by name, (n,) each: log10 of the energies of particle and layers in GeV; in layers
    with sectors the centres and widths of the energy in eta and phi, in units of 100 mm.
    """
    binning, cells = voxels.binning, voxel_cells(voxels.binning)
    layers = voxels.layers
    found = {"log10_E": np.log10(voxels.energy)}
    names = [NAMES[layer.sampling] for layer in binning.layers]
    for i, name in enumerate(names):
        found[f"log10_E_{name}"] = np.log10(layers[:, i] + LEAST)
    safe = np.maximum(layers, 1e-12)
    for axis in ("eta", "phi"):
        place = getattr(cells, axis) * cells.rPerp / 100.0
        mean, square = (layer_sums(voxels.showers * place**q, binning) / safe for q in (1, 2))
        width = np.sqrt(np.maximum(square - mean**2, 0.0))
        for i, name in enumerate(names):
            if binning.layers[i].n_alpha > 1:
                found[f"centre_{axis}_{name}"], found[f"width_{axis}_{name}"] = (
                    mean[:, i], width[:, i],
                )  # fmt: skip
    return found


def high_table(voxels: Voxels) -> F64:
    """Quantities of high level in columns, (n, n_quantities)."""
    return np.column_stack(list(high_level(voxels).values()))


def low_table(voxels: Voxels) -> F64:
    """log10 of the energy of the particle and all voxels over it, (n, 1 + n_voxels)."""
    return np.column_stack([np.log10(voxels.energy), voxels.showers / voxels.energy[:, None]])


def network_auc(
    reference: NDArray[np.floating],
    sample: NDArray[np.floating],
    *,
    seed: int,
    width: int = 512,
    epochs: int = 50,
) -> Estimate:
    """Area under the ROC curve of a network of two hidden layers that was trained to tell two
    samples apart, on a fifth of them.

    Sizes, rate, batches and the choice of the epoch by the accuracy on another fifth are those of
    the challenge. Its quantities are brought to mean 0 and width 1, which makes it sharper where
    showers are few.

    Parameters
    ----------
    reference, sample : ndarray, shape (n, d)
        Equally many.
    seed : int
        Of splits and weights.
    width : int
        Of the hidden layers.
    epochs : int

    Raises
    ------
    ConfigError
        If the numbers of rows differ.
    """
    n = len(reference)
    if len(sample) != n:
        raise ConfigError(f"{len(sample)} showers against {n}: expected as many")
    reference, sample = (np.asarray(x, dtype=np.float32) for x in (reference, sample))
    rng = np.random.default_rng(seed)
    cut = int((SPLIT[0] + SPLIT[1]) * n)
    parts = [x[rng.permutation(n)] for x in (reference, sample)]
    seen, unseen = (np.concatenate([x[rows] for x in parts]) for rows in (np.s_[:cut], np.s_[cut:]))
    label = np.repeat([False, True], n - cut)
    network = MLPClassifier(
        (width, width), batch_size=min(1000, max(cut // 5, 20)), learning_rate_init=2e-4,
        max_iter=epochs, early_stopping=True, n_iter_no_change=epochs,
        validation_fraction=SPLIT[1] / sum(SPLIT), random_state=seed, alpha=0.0,
    )  # fmt: skip
    model = make_pipeline(StandardScaler(), network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are what is wanted
        model.fit(seen, np.repeat([False, True], cut))
    return auc(model.predict_proba(unseen)[:, 1], label)


def trees_auc(reference: F64, sample: F64, *, seed: int, n_folds: int = 5) -> Estimate:
    """The same with boosted trees, by cross-validation on all showers (`metrics.fidelity`)."""
    return tell_apart(sample, reference, copies=1, seed=seed, n_folds=n_folds).auc


def separations(reference: Voxels, sample: Voxels) -> dict[str, float]:
    """Separation of the histograms of each quantity of high level, of the total energy over that of
    the particle, and of the energies of lit voxels.

    Bins are equal and reach over 99.8 % of the reference; the outermost ones hold what is beyond.
    """
    found = {}
    one, two = (_shown(voxels) for voxels in (reference, sample))
    for name, values in one.items():
        low, high = np.quantile(values, (0.001, 0.999))
        edges = np.linspace(low, max(high, low + 1e-9), N_BINS + 1)[1:-1]
        counts = [np.bincount(np.digitize(x, edges), minlength=N_BINS) for x in (values, two[name])]
        found[name] = separation(*counts)
    return found


def _shown(voxels: Voxels) -> dict[str, F64]:
    shown = high_level(voxels)
    shown.pop("log10_E")
    shown["response"] = voxels.layers.sum(axis=1) / voxels.energy
    shown["log10_E_voxel"] = np.log10(voxels.showers[voxels.showers > 0.0].astype(np.float64))
    return shown


def repeated_share(
    sample: Voxels, training: Voxels, held_out: Voxels, *, n_mixed: int = 50
) -> Estimate:
    """Share of generated showers that are nearer to a shower of the training than to any of equally
    many that the generator has not seen; a half, if it has learnt nothing by heart.

    Distances are Euclidean, of square roots of the voxels over the energy of the particle, among
    showers of the same energy. A few typical showers are the nearest ones of many, so the error is
    the spread of the share when training and held-out showers are mixed and parted anew.

    Parameters
    ----------
    sample, training, held_out : Voxels
    n_mixed : int
        Times that they are parted anew.
    """
    rng, found, total = np.random.default_rng(1), np.zeros(1 + n_mixed), 0
    for energy in np.unique(sample.energy):
        mine, *both = (of.take(of.energy == energy) for of in (sample, training, held_out))
        n = min(len(of.energy) for of in both)
        if n == 0:
            continue
        points = [np.sqrt(of.showers / np.float32(energy)) for of in (mine, *both)]
        distance = euclidean_distances(points[0], np.concatenate([x[:n] for x in points[1:]]))
        parted = [np.arange(2 * n), *(rng.permutation(2 * n) for _ in range(n_mixed))]
        for k, order in enumerate(parted):
            seen, unseen = (distance[:, rows].min(axis=1) for rows in (order[:n], order[n:]))
            found[k] += np.sum(seen < unseen) + 0.5 * np.sum(seen == unseen)
        total += len(mine.energy)
    return Estimate(float(found[0] / total), float(np.std(found[1:] / total)))


# areas under the curve at low and high level, 1000 times the Frechet physics distance, of
# generators on the first data set of the challenge (arXiv:2410.21611)
PUBLISHED = {
    "photon": {
        "BoloGAN": (0.927, 0.966, 142.0),
        "CaloShower3GAN": (0.928, 0.947, 20.5),
        "CaloVAE+INN": (0.889, 0.966, 14.6),
        "CaloINN": (0.626, 0.638, 3.9),
        "CaloDiffusion": (0.635, 0.536, 0.65),
    },
    "pion": {
        "BoloGAN": (0.913, 0.969, 499.0),
        "CaloINN": (0.784, 0.732, 29.0),
        "CaloDiffusion": (0.680, 0.652, 2.8),
    },
}
