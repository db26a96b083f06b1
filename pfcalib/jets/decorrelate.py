"""Taggers that leave the mass of the background alone: by distance correlation, by an adversary, or
by a cut that moves with the mass; and how much of the mass a cut still carves.

The penalties are layers of the network that is trained: they let the output pass and add a loss of
background jets alone. What is applied and exported is the classifier without them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.metrics.bootstrap import bootstrap
from pfcalib.models.blocks import QuantileBins, Tensor
from pfcalib.training.fit import History, Say, TrainConfig
from pfcalib.training.kept import fit_kept

METHODS = ("plain", "distance", "adversary")
INPUT, OUTPUT = "shapes", "p_w"
SMALL = 1e-12
N_REFERENCE = 500  # jets that check an export

FloatArray = NDArray[np.float64]


def distance_correlation(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Squared distance correlation of two quantities (Szekely, Rizzo and Bakirov, Ann. Stat. 35
    (2007) 2769; as a penalty arXiv:2001.05310): 0 where they are independent, 1 where one is a
    linear function of the other.

    Parameters
    ----------
    x, y, weight : tensor, shape (n,)
        The weights are not negative, 0 for what does not count.

    Returns
    -------
    tensor, shape ()
    """
    share = weight / (ops.sum(weight) + SMALL)
    a, b = (_centred(ops.abs(of[:, None] - of[None, :]), share) for of in (x, y))

    def mean(product: Tensor) -> Tensor:
        return ops.sum(share * ops.sum(product * share[None, :], axis=1))

    return mean(a * b) / ops.sqrt(mean(a * a) * mean(b * b) + SMALL)


def _centred(distance: Tensor, share: Tensor) -> Tensor:
    """Distances (n, n) less the means of their rows and columns, and with that of all."""
    row = ops.sum(distance * share[None, :], axis=1)
    return distance - row[:, None] - row[None, :] + ops.sum(row * share)


def divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms in bits: 0 where they have the same shape, 1
    where no bin has entries of both.

    >>> divergence([1, 0], [0, 2]), divergence([1, 2], [2, 4])
    (1.0, 0.0)
    """
    one, two = (np.asarray(h, np.float64) / np.sum(h) for h in (p, q))
    middle = 0.5 * (one + two)
    terms = [np.sum(h[h > 0.0] * np.log2(h[h > 0.0] / middle[h > 0.0])) / 2.0 for h in (one, two)]
    return float(sum(terms))


class Carving(NamedTuple):
    """What a cut does to the background; as if one passed where none does."""

    rejection: float  # one over the share of it that passes
    jsd: float  # divergence of its mass between what passes and what fails, bits


def carving(
    score: ArrayLike, mass: ArrayLike, is_w: ArrayLike, edges: ArrayLike, *, efficiency: float = 0.5
) -> Carving:
    """Of the cut that keeps a share of the signal.

    Parameters
    ----------
    score, mass, is_w : array_like, shape (n,)
    edges : array_like
        Bins of the mass.
    efficiency : float
    """
    score, signal = np.asarray(score, np.float64), np.asarray(is_w, np.bool_)
    passes = score[~signal] >= np.quantile(score[signal], 1.0 - efficiency, method="lower")
    histograms = [np.histogram(np.asarray(mass)[~signal][of], edges)[0] for of in (passes, ~passes)]
    rejection = len(passes) / max(int(passes.sum()), 1)
    jsd = divergence(*histograms) if all(h.sum() for h in histograms) else 1.0
    return Carving(rejection, max(jsd, SMALL))


def carving_resamples(
    score: ArrayLike, mass: ArrayLike, is_w: ArrayLike, edges: ArrayLike, *,
    rng: np.random.Generator, efficiency: float = 0.5, n_resamples: int = 200,
) -> FloatArray:  # fmt: skip
    """`carving` of bootstrap resamples, (n_resamples, 2)."""

    def of(*arrays: ArrayLike) -> ArrayLike:
        return carving(*arrays, edges, efficiency=efficiency)  # type: ignore[misc,arg-type]

    return bootstrap(of, score, mass, is_w, rng=rng, n_resamples=n_resamples)


def shift_with_mass(
    score: ArrayLike, ln_mass: ArrayLike, background: ArrayLike, *, share: float = 1.0
) -> FloatArray:
    """A score less its linear dependence on the logarithm of the mass in some background jets, as
    the designed decorrelated taggers do (arXiv:1603.00027).

    Parameters
    ----------
    score, ln_mass : array_like, shape (n,)
    background : array_like of bool, shape (n,)
        Jets that tell the slope.
    share : float
        Of the slope that is taken away.
    """
    x, s = np.asarray(ln_mass, np.float64), np.asarray(score, np.float64)
    chosen = np.asarray(background, np.bool_)
    slope = np.polyfit(x[chosen], s[chosen], 1)[0]
    return np.asarray(s - share * slope * (x - x[chosen].mean()))


def rank_at_mass(
    score: ArrayLike, mass: ArrayLike, background: ArrayLike, *, k: int = 500
) -> FloatArray:
    """Share of the k background jets nearest in mass that have a lower score: a cut on it keeps the
    same share of the background at each mass.

    Parameters
    ----------
    score, mass : array_like, shape (n,)
    background : array_like of bool, shape (n,)
        Jets among which the nearest are looked for.
    k : int
    """
    s, m = np.asarray(score, np.float64), np.asarray(mass, np.float64)
    rows = np.flatnonzero(background)
    rows = rows[np.argsort(m[rows], kind="stable")]
    k = min(k, len(rows))
    start = np.clip(np.searchsorted(m[rows], m) - k // 2, 0, len(rows) - k)
    reference = s[rows]
    return np.array(
        [np.mean(reference[a : a + k] < value) for a, value in zip(start, s, strict=True)]
    )


def normal_distance_correlation(rho: float) -> float:
    """Squared distance correlation of two normal quantities of a correlation (Szekely, Rizzo and
    Bakirov, theorem 7).

    >>> normal_distance_correlation(0.0), round(normal_distance_correlation(1.0), 12)
    (0.0, 1.0)
    """
    value = rho * math.asin(rho) + math.sqrt(1.0 - rho**2)
    value -= rho * math.asin(rho / 2.0) + math.sqrt(4.0 - rho**2) - 1.0
    return value / (1.0 + math.pi / 3.0 - math.sqrt(3.0))


class TaggedJets(NamedTuple):
    """Jets to train on."""

    shapes: NDArray[np.float32]  # (n, n_shapes)
    ln_mass: NDArray[np.float32]  # (n,) of about mean 0 and width 1 in the background
    is_w: NDArray[np.bool_]  # (n,)

    def take(self, rows: NDArray[Any]) -> TaggedJets:
        """Some of them, by place or mask."""
        return TaggedJets(*(column[rows] for column in self))


@dataclass(frozen=True, kw_only=True)
class DecorrelationConfig:
    """A tagger and its training.

    Parameters
    ----------
    method : str
        Of METHODS.
    strength : float
        Of the penalty: of the squared distance correlation, or of the adversary's gradient.
    widths : tuple of int
        Of the hidden layers of the classifier, with swish.
    n_bins : int
        Quantile bins of each shape.
    n_components, adversary_width : int
        Gaussians of the adversary's density of the mass, and width of its two hidden layers.
    adversary_speed : float
        Times the learning rate of the classifier at which the adversary learns, so that it follows.
    warm_up : int
        Batches in which the penalty grows to its strength. At once, a strong one meets outputs that
        tell nothing and can hold them there, or on the wrong side of the signal.
    train : TrainConfig
        Its seed is that of the first weights too. The weights after the last epoch are kept, as the
        loss of an adversary's game does not tell the best ones.
    """

    method: str = "plain"
    strength: float = 0.0
    widths: tuple[int, ...] = (64, 64, 64)
    n_bins: int = 16
    n_components: int = 8
    adversary_width: int = 64
    adversary_speed: float = 10.0
    warm_up: int = 0
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS or (self.strength > 0.0) != (self.method != "plain"):
            raise ConfigError(
                f"DecorrelationConfig: method {self.method!r}, strength {self.strength}: expected "
                f"one of {', '.join(METHODS)}, and a strength above 0 unless it is plain"
            )


class Tagger(NamedTuple):
    """A trained tagger."""

    config: DecorrelationConfig
    model: Any  # keras.Model, of shapes alone
    history: History
    path: Path  # its ONNX file

    def p_w(self, shapes: NDArray[np.float32]) -> FloatArray:
        """Probability of a W boson, (n,)."""
        return predict(self.model, {INPUT: shapes}, batch=10_000)[:, 1].astype(np.float64)


class Penalty(layers.Layer):
    """Lets a probability pass and adds a loss, whose strength grows over the first batches."""

    def __init__(self, strength: float, warm_up: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strength, self.warm_up = strength, warm_up

    def build(self, *_: Any) -> None:
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, name="step")
        self.built = True

    def grown(self, training: bool | None) -> Tensor:
        """The strength in this batch."""
        if training:
            self.step.assign_add(1.0)
        return self.strength * ops.minimum(self.step / max(self.warm_up, 1), 1.0)

    def compute_output_shape(self, p_shape: Any, *_: Any) -> Any:
        return p_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strength": self.strength, "warm_up": self.warm_up}


@keras.saving.register_keras_serializable(package="pfcalib")
class DistancePenalty(Penalty):
    """The squared distance correlation of the probability and the mass."""

    def call(
        self, p: Tensor, ln_mass: Tensor, background: Tensor, training: bool | None = None
    ) -> Tensor:
        found = distance_correlation(p[:, 1], ln_mass[:, 0], background[:, 0])
        self.add_loss(self.grown(training) * found)
        return 1.0 * p


def reverse_gradient(x: Tensor, strength: float | Tensor) -> Tensor:
    """The same value, whose gradient comes back turned around and scaled (arXiv:1505.07818)."""
    return ops.stop_gradient((1.0 + strength) * x) - strength * x


@keras.saving.register_keras_serializable(package="pfcalib")
class Adversary(Penalty):
    """A density of the mass given the probability, a mixture of Gaussians, learns what that tells
    of the mass, and the classifier to tell less (arXiv:1703.03507).
    """

    def __init__(
        self, strength: float, n_components: int, width: int, speed: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(strength, **kwargs)
        self.n_components, self.width, self.speed = n_components, width, speed
        # Adam's steps do not depend on the scale of a gradient: weights that are smaller, and count
        # more, learn faster
        start = keras.initializers.VarianceScaling(speed**-2, "fan_avg", "uniform", seed=1)
        self.hidden = [
            layers.Dense(width, kernel_initializer=start, name=f"hidden{i}") for i in range(2)
        ]
        self.mixture = layers.Dense(3 * n_components, kernel_initializer=start, name="mixture")

    def build(self, p_shape: Any, *_: Any) -> None:
        for dense, size in zip(
            (*self.hidden, self.mixture), (1, self.width, self.width), strict=True
        ):
            dense.build((p_shape[0], size))
        super().build()

    def call(
        self, p: Tensor, ln_mass: Tensor, background: Tensor, training: bool | None = None
    ) -> Tensor:
        x = reverse_gradient(p[:, 1:], self.grown(training))
        for dense in self.hidden:
            x = ops.swish(self.speed * dense(x))
        log_weight, mean, log_width = ops.split(self.speed * self.mixture(x), 3, axis=1)
        log_width = 3.0 * ops.tanh(log_width / 3.0)
        pull = (ln_mass - mean) * ops.exp(-log_width)
        log_density = ops.logsumexp(
            ops.log_softmax(log_weight, axis=1) - 0.5 * pull**2 - log_width, axis=1
        )
        weight = background[:, 0]
        self.add_loss(-ops.sum(weight * log_density) / (ops.sum(weight) + SMALL))
        return 1.0 * p

    def get_config(self) -> dict[str, Any]:
        names = ("n_components", "width", "speed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def build_tagger(n_shapes: int, config: DecorrelationConfig) -> tuple[keras.Model, keras.Model]:
    """The untrained network with its penalty, and the classifier in it.

    Returns
    -------
    training : keras.Model
        Inputs "shapes" (n, n_shapes), "ln_mass" and "background" (n, 1).
    classifier : keras.Model
        Input "shapes"; output "p_w" (n, 2), probabilities of QCD and of a W boson.
    """
    keras.utils.set_random_seed(config.train.seed)
    shapes = keras.Input((n_shapes,), name=INPUT, dtype="float32")
    x = QuantileBins(config.n_bins, name="bins")(shapes)
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="swish", name=f"dense{i}")(x)
    p = layers.Dense(2, activation="softmax", name=OUTPUT)(x)
    classifier = keras.Model({INPUT: shapes}, p, name="tagger")
    more = {
        name: keras.Input((1,), name=name, dtype="float32") for name in ("ln_mass", "background")
    }
    if config.method == "distance":
        p = DistancePenalty(config.strength, config.warm_up, name="penalty")(p, *more.values())
    elif config.method == "adversary":
        penalty = Adversary(
            config.strength, config.n_components, config.adversary_width, config.adversary_speed,
            warm_up=config.warm_up, name="penalty",
        )  # fmt: skip
        p = penalty(p, *more.values())
    inputs = {INPUT: shapes} if config.method == "plain" else {INPUT: shapes, **more}
    return keras.Model(inputs, p, name=f"tagger_{config.method}"), classifier


def fit_tagger(
    training: TaggedJets,
    held_out: TaggedJets,
    config: DecorrelationConfig,
    *,
    names: Sequence[str],
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> Tagger:
    """Train a tagger and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : TaggedJets
    config : DecorrelationConfig
    names : sequence of str
        Of the shapes, for the contract.
    inputs : str
        What the jets are, such as a hash of their content: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    model, classifier = build_tagger(training.shapes.shape[1], config)
    classifier.get_layer("bins").adapt(training.shapes)

    def file(_: keras.Model) -> dict[str, Any]:
        return {
            "model": classifier,
            "inputs": {INPUT: held_out.shapes[:N_REFERENCE]},
            "kind": "jet_shapes",
            "normalisation": f"{INPUT}: {', '.join(names)}; {OUTPUT}: QCD, W boson",
        }

    found = fit_kept(
        f"tagger_{config.method}", lambda: model,
        (_arrays(training, config), _arrays(held_out, config)), config.train,
        settings={"config": asdict(config), "inputs": inputs, "names": list(names)},
        export=file if export else None, last=True, say=say,
    )  # fmt: skip
    return Tagger(config, classifier, found.result.history, found.path)


def _arrays(jets: TaggedJets, config: DecorrelationConfig) -> tuple[Any, ...]:
    """Inputs, answers and weights with which both classes are equally common."""
    inputs = {INPUT: jets.shapes}
    if config.method != "plain":
        inputs |= {
            "ln_mass": jets.ln_mass[:, None],
            "background": (~jets.is_w)[:, None].astype(np.float32),
        }
    share = jets.is_w.mean()
    weight = np.where(jets.is_w, 0.5 / share, 0.5 / (1.0 - share)).astype(np.float32)
    return inputs, np.eye(2, dtype=np.float32)[jets.is_w.astype(int)], weight
