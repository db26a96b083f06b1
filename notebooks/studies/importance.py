"""Which parts of its input a trained regression needs: parts are shuffled among clusters of like
energy, or set to zero, without retraining.

Shuffling a part (Breiman, Mach. Learn. 45 (2001) 5; Fisher, Rudin and Dominici, arXiv:1801.01489)
breaks its tie to the truth and leaves its own distribution as it is. It is done among clusters of
the same bin of clusterE, so that the shape is lost and not the energy: pixels are shares of
clusterE, and an image that kept its part from a cluster of another energy would be none that the
network knows. A part that others can stand in for has little importance. The shares of a shuffled
image do not sum to one, which a network may notice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_SHAPES
from pfcalib.features.inputs import build_inputs, input_layers
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import MIN_COUNT
from pfcalib.samples.read import PathLike
from pfcalib.training.networks import open_stream, output_energy
from pfcalib.training.regressors import Regressor

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)

BIN_SIZE = 200  # clusters of like energy that a part is shuffled among
WINDOW = (0.4, np.pi / 8.0)  # size of an image in eta and phi
# between core, inner and outer ring; in EMB2 the core is 3 x 3 cells, core and inner together about
# 7 x 7
RING_EDGES = (0.025, 0.075)
RING_NAMES = ("core", "inner", "outer")
_PIECE = 2000  # clusters read at once
_ROUNDING = 1e-9


class Part(NamedTuple):
    """A part of the input that is treated as one."""

    name: str
    # by input, the shape of that input without the batch axis; inputs that are not touched are
    # missing
    masks: dict[str, Mask]
    # shuffled among clusters of like energy; else among all, as a scalar that is the energy has to
    # be
    within_bins: bool = True


class Inputs(NamedTuple):
    """Clusters as a network sees them."""

    arrays: dict[str, NDArray[np.float32]]  # by input, each (n_clusters, ...)
    cluster_e: FloatArray  # (n_clusters,) GeV
    e_true: FloatArray  # (n_clusters,) GeV, as the target of the network defines it

    def take(self, rows: Rows) -> Inputs:
        """Copies of some of the clusters."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return Inputs(arrays, self.cluster_e[rows], self.e_true[rows])

    def without(self, parts: Sequence[Part]) -> Inputs:
        """The same clusters with some parts set to zero."""
        arrays = {name: array.copy() for name, array in self.arrays.items()}
        for part in parts:
            for name, mask in part.masks.items():
                arrays[name][:, mask] = 0.0
        return self._replace(arrays=arrays)


class Measure(NamedTuple):
    """A number that says how badly a network does on some clusters."""

    rows: Rows
    # of predicted and true energy, both (..., n_rows) -> (...)
    badness: Callable[[FloatArray, FloatArray], FloatArray]


def pixel_distances(layer: str) -> FloatArray:
    """Distance in eta and phi of the nearest point of each pixel from the centre of the image,
    shape (n_eta, n_phi).

    The centre is that of an EMB2 cell; pixels of another size lie around it by chance, on average
    as if their edges met there. The nearest point is taken, not the centre of the pixel, so that
    long pixels and large ones that hold the axis of the shower belong to the core.

    >>> pixel_distances("TileBar0").round(3).tolist()[1]
    [0.098, 0.0, 0.0, 0.098]
    """
    away = []
    for axis, n_pixels in enumerate(IMAGE_SHAPES[layer]):
        size = WINDOW[axis] / n_pixels
        # a pixel of EMB2 has the centre in its middle
        shift = 0.5 if n_pixels == IMAGE_SHAPES["EMB2"][axis] else 0.0
        low = (np.arange(n_pixels) - n_pixels // 2 - shift) * size
        away.append(np.maximum(np.maximum(low, -(low + size)), 0.0))
    return np.hypot(away[0][:, None], away[1][None, :])


def layer_parts(kind: str) -> list[Part]:
    """Each layer of a kind of inputs, see `features.inputs`."""
    return [_part(layer, layer, np.ones(IMAGE_SHAPES[layer]), kind) for layer in input_layers(kind)]


def ring_parts(kind: str) -> list[Part]:
    """The rings of each layer between RING_EDGES; a ring without a pixel, as coarse layers have
    it, is left out.

    >>> [part.name for part in ring_parts("layer:TileBar0")]
    ['TileBar0 core', 'TileBar0 outer']
    """
    parts = []
    for layer in input_layers(kind):
        ring = np.searchsorted(RING_EDGES, pixel_distances(layer) + _ROUNDING, side="right")
        for i in np.unique(ring):
            parts.append(_part(f"{layer} {RING_NAMES[i]}", layer, ring == i, kind))
    return parts


def scalar_parts(names: Sequence[str], *, energy: str = "clusterE") -> list[Part]:
    """Each scalar; the energy itself is shuffled among all clusters, as it hardly varies among
    those of like energy.
    """
    places = np.arange(len(names))
    return [
        Part(name, {"scalars": places == i}, within_bins=name != energy)
        for i, name in enumerate(names)
    ]


def _part(name: str, layer: str, marked: NDArray[np.generic], kind: str) -> Part:
    """A mask on the image of a layer, sent through what makes inputs of images, so that it fits
    every kind of them.
    """
    images = {
        other: np.zeros((1, *IMAGE_SHAPES[other]), dtype=np.float32) for other in input_layers(kind)
    }
    images[layer][0] = marked
    masks = {key: array[0] != 0.0 for key, array in build_inputs(images, kind).items()}
    return Part(name, {key: mask for key, mask in masks.items() if mask.any()})


def read_inputs(
    regressor: Regressor, path: PathLike, *, split: str, n_clusters: int, rng: np.random.Generator
) -> Inputs:
    """Clusters of a split that a regressor is made for, in the order of the file; n_clusters of
    them at most, drawn by chance.
    """
    config = regressor.network.config
    stream = open_stream(path, config, split=split)
    chosen = np.arange(stream.n_clusters)
    if n_clusters < len(chosen):
        chosen = np.sort(rng.choice(len(chosen), n_clusters, replace=False))
    pieces = [stream.batch(chosen[i : i + _PIECE])[0] for i in range(0, len(chosen), _PIECE)]
    target = config.target or TargetConfig()
    return Inputs(
        {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]},
        stream.column("clusterE")[chosen].astype(np.float64),
        target.energy_true({name: stream.column(name)[chosen] for name in target.columns}),
    )


def predict_energy(regressor: Regressor, inputs: Inputs) -> FloatArray:
    """Energies in GeV, with the inversion of the regressor if it has one."""
    output = predict(regressor.network.model, inputs.arrays)
    config = regressor.network.config
    energy = output_energy(config.head, config.target, output, inputs.cluster_e)
    return energy if regressor.inversion is None else regressor.inversion.apply(energy)


def energy_bins(energy: FloatArray, *, size: int = BIN_SIZE) -> Rows:
    """Number of the bin of each cluster, in bins of rising energy that hold at least `size`
    clusters each (all of them, if there are fewer).

    >>> energy_bins(np.array([3.0, 1.0, 4.0, 2.0]), size=2).tolist()
    [1, 0, 1, 0]
    """
    n = len(energy)
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(energy, kind="stable")] = np.arange(n)
    return place * max(n // size, 1) // max(n, 1)


def shuffle_in_bins(bins: Rows, rng: np.random.Generator) -> Rows:
    """A random permutation of clusters that keeps each in its bin: the row that each takes from,
    shape (n_clusters,).
    """
    donors = np.empty(len(bins), dtype=np.int64)
    donors[np.argsort(bins, kind="stable")] = np.lexsort((rng.random(len(bins)), bins))
    return donors


def exchange(inputs: Inputs, part: Part, rows: Rows, donors: Rows) -> Inputs:
    """Some of the clusters with a part taken from others, one donor a row."""
    result = inputs.take(rows)
    for name, mask in part.masks.items():
        result.arrays[name][:, mask] = inputs.arrays[name][donors][:, mask]
    return result


def permutation_importance(
    regressor: Regressor,
    inputs: Inputs,
    parts: Sequence[Part],
    measures: Mapping[Key, Measure],
    *,
    rng: np.random.Generator,
    n_repeats: int = 3,
    n_bootstrap: int = 100,
) -> dict[Key, dict[str, Estimate]]:
    """By which share each measure rises when a part is shuffled among clusters of like clusterE.

    All parts are shuffled alike, repeat by repeat. The donors come from all clusters; only those
    that a measure looks at are asked.

    Parameters
    ----------
    regressor : Regressor
    inputs : Inputs
        Of a split that took no part in the training.
    parts : sequence of Part
    measures : mapping to Measure
        By any key.
    rng : numpy.random.Generator
    n_repeats : int
        Shufflings that are averaged.
    n_bootstrap : int
        Resamples of the clusters; as each takes its cluster with its donors, the error covers the
        shuffling too.

    Returns
    -------
    dict
        By the key of the measure and the name of the part.

    Raises
    ------
    ConfigError
        If there is no measure, or n_repeats is below 1.
    ValidationError
        If a measure has too few clusters.
    """
    if not measures or n_repeats < 1:
        raise ConfigError(
            f"{len(measures)} measures, {n_repeats} repeats: expected at least one of each"
        )
    for key, measure in measures.items():
        if len(measure.rows) < MIN_COUNT:
            raise ValidationError(
                f"{key}: {len(measure.rows)} clusters of {len(inputs.e_true)}, expected "
                f"{MIN_COUNT}: more clusters, or wider bins of energy"
            )
    rows = np.unique(np.concatenate([measure.rows for measure in measures.values()]))
    places = {key: np.searchsorted(rows, measure.rows) for key, measure in measures.items()}
    # the clusters themselves first, then their resamples
    drawn = {
        key: np.vstack([np.arange(len(p)), rng.integers(0, len(p), (n_bootstrap, len(p)))])
        for key, p in places.items()
    }
    bins = energy_bins(inputs.cluster_e)
    donors = {
        within: [
            shuffle_in_bins(bins if within else np.zeros_like(bins), rng)[rows]
            for _ in range(n_repeats)
        ]
        for within in (True, False)
    }

    def measured(key: Key, energy: FloatArray) -> FloatArray:
        truth, chosen = inputs.e_true[rows][places[key]], drawn[key]
        return measures[key].badness(energy[places[key]][chosen], truth[chosen])

    intact = predict_energy(regressor, inputs.take(rows))
    base = {key: measured(key, intact) for key in measures}
    rise: dict[Key, dict[str, Estimate]] = {key: {} for key in measures}
    for part in parts:
        shuffled = [
            predict_energy(regressor, exchange(inputs, part, rows, given))
            for given in donors[part.within_bins]
        ]
        for key in measures:
            after = np.mean([measured(key, energy) for energy in shuffled], axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                relative = (after - base[key]) / base[key]
            rise[key][part.name] = Estimate.resampled(relative[0], relative[1:])
    return rise
