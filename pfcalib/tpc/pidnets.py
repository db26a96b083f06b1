"""Corrections of the expected energy loss of tracks, of its mean and of its width, by networks and
by sums of splines; and the standard deviations by which a signal differs.

Networks are those of ALICE (C. Sonnabend, CERN-THESIS-2023-034 and O2Physics): a row of narrow
layers with hyperbolic tangents each for the mean of the signal over the expected one, and then for
its width. Splines stand for what was done before: corrections of one quantity at a time.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from pfcalib.deploy.export import predict
from pfcalib.tpc.dedx import COLUMNS, MASS, TpcTracks, expected_width
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUT, OUTPUT = "tracks", "correction"
HALF_NORMAL = float(np.sqrt(np.pi / 2.0))  # width of a Gaussian over its mean deviation
UNIT = 0.1  # about the size of what networks have to say
LEAST = 0.05  # width over the parametrised one
N_REFERENCE = 500  # tracks that check an export
LOGS = ("momentum", "mass")  # that are seen as logarithms
F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PidNetConfig:
    """Size and training of both networks.

    Parameters
    ----------
    n_layers, width : int
        Of the hidden layers.
    train : TrainConfig
    """

    n_layers: int = 12
    width: int = 10
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=2e-3, batch_size=4096, epochs=30, patience=30, schedule="cosine_steps",
            loss="mse",
        )
    )  # fmt: skip


class Correction(Protocol):
    """What is known of the signal of tracks over the expected one."""

    def mean(self, tracks: TpcTracks) -> F64:
        """Its mean, (n,)."""

    def width(self, tracks: TpcTracks) -> F64:
        """Its width, (n,)."""


class Uncorrected(NamedTuple):
    """The expected signal and the parametrised width as they are."""

    def mean(self, tracks: TpcTracks) -> F64:
        return np.ones(len(tracks.signal))

    def width(self, tracks: TpcTracks) -> F64:
        return expected_width(tracks)


class Networks(NamedTuple):
    """A network for the mean, and one for the width over the parametrised one."""

    of_mean: Kept
    of_width: Kept

    def mean(self, tracks: TpcTracks) -> F64:
        return _say(self.of_mean.model, tracks)

    def width(self, tracks: TpcTracks) -> F64:
        return np.maximum(_say(self.of_width.model, tracks), LEAST) * expected_width(tracks)


class Splines(NamedTuple):
    """For each species a sum of splines of single quantities for the mean, one for the width over
    the parametrised one.
    """

    of_mean: dict[int, Any]  # by place in SPECIES
    of_width: dict[int, Any]

    def mean(self, tracks: TpcTracks) -> F64:
        return _of_species(self.of_mean, tracks)

    def width(self, tracks: TpcTracks) -> F64:
        return np.maximum(_of_species(self.of_width, tracks), LEAST) * expected_width(tracks)


def n_sigma(correction: Correction, tracks: TpcTracks) -> F64:
    """Standard deviations by which the signals differ from what is expected, (n,)."""
    return (tracks.ratio - correction.mean(tracks)) / correction.width(tracks)


def _seen(tracks: TpcTracks) -> NDArray[np.float32]:
    """Columns as networks and splines see them."""
    columns = tracks.columns.copy()
    for name in LOGS:
        place = list(COLUMNS).index(name)
        columns[:, place] = np.log(columns[:, place])
    return columns.astype(np.float32)


def build_pid_network(config: PidNetConfig, examples: NDArray[np.float32]) -> keras.Model:
    """Untrained network: input "tracks" (n, len(COLUMNS)) float32, with the logarithms of LOGS;
    output "correction" (n, 1).

    Parameters
    ----------
    config : PidNetConfig
    examples : ndarray
        Inputs from which it takes shift and scale; answers lie about 1, in units of UNIT.
    """
    inputs = keras.Input((len(COLUMNS),), name=INPUT)
    x = layers.Normalization(
        mean=examples.mean(axis=0), variance=examples.var(axis=0) + 1e-12, name="scale"
    )(inputs)
    for i in range(config.n_layers):
        x = layers.Dense(config.width, activation="tanh", name=f"dense{i}")(x)
    x = layers.Dense(1, name="last")(x)
    return keras.Model({INPUT: inputs}, layers.Rescaling(UNIT, 1.0, name=OUTPUT)(x), name="pid")


def fit_networks(
    training: TpcTracks, held_out: TpcTracks, config: PidNetConfig | None = None, *, inputs: str,
    export: bool = True, say: Say = print,
) -> Networks:  # fmt: skip
    """Train both networks, or find them: the first on the signals over the expected ones, the
    second on how far these are from what the first says, in parametrised widths.

    Parameters
    ----------
    training, held_out : TpcTracks
    config : PidNetConfig, optional
    inputs : str
        What the tracks are: part of the key of the cache.
    export : bool
        Without it there are no ONNX files.
    say : callable
        Takes one line an epoch.
    """
    config = config or PidNetConfig()
    seen = [_seen(part) for part in (training, held_out)]
    targets = [part.ratio for part in (training, held_out)]
    found: list[Kept] = []
    for name in ("mean", "width"):
        if found:
            parts = (training, held_out)
            mean = [_say(found[0].model, part) for part in parts]
            targets = [_deviation(part, m) for part, m in zip(parts, mean, strict=True)]
        unit = {"unit": "parametrised width"} if found else {}
        data, check = (
            ({INPUT: x}, t.astype(np.float32)[:, None]) for x, t in zip(seen, targets, strict=True)
        )
        columns = ", ".join(f"ln {one}" if one in LOGS else one for one in COLUMNS)
        told = {
            "inputs": {INPUT: seen[1][:N_REFERENCE]}, "kind": "tracks",
            "normalisation": f"{INPUT}: {columns}, GeV; {OUTPUT}: {name} of the signal over the "
            "expected one" + (", over the parametrised width" if found else ""),
        }  # fmt: skip
        found.append(
            fit_kept(
                f"pid_{name}", functools.partial(build_pid_network, config, seen[0]),
                (data, check), config.train,
                settings={"config": asdict(config), "inputs": inputs, **unit},
                export=functools.partial(_told, told) if export else None, say=say,
            )
        )  # fmt: skip
    return Networks(*found)


def _told(told: dict[str, Any], _: keras.Model) -> dict[str, Any]:
    return told


def network_inputs(tracks: TpcTracks) -> dict[str, NDArray[np.float32]]:
    """Inputs of a network or its file."""
    return {INPUT: _seen(tracks)}


def _say(model: keras.Model, tracks: TpcTracks) -> F64:
    return predict(model, network_inputs(tracks), batch=50_000)[:, 0].astype(np.float64)


def fit_splines(training: TpcTracks, *, n_knots: int = 8, ridge: float = 1e-6) -> Splines:
    """Fit sums of cubic splines with knots at quantiles, by least squares, for each species.

    Parameters
    ----------
    training : TpcTracks
    n_knots : int
        Of each quantity.
    ridge : float
        Penalty of the coefficients.
    """
    fitted: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for kind in range(len(MASS)):
        mine = training.take(training.species == kind)
        if not len(mine.signal):
            continue
        target = mine.ratio
        for of in fitted:
            model = make_pipeline(
                SplineTransformer(n_knots=n_knots, knots="quantile", extrapolation="constant"),
                Ridge(alpha=ridge),
            )
            of[kind] = model.fit(_one_species(mine), target)
            target = _deviation(mine, model.predict(_one_species(mine)))
    return Splines(*fitted)


def _deviation(tracks: TpcTracks, mean: F64) -> F64:
    """Of a Gaussian about the mean its mean is the width, in units of the parametrised one."""
    return HALF_NORMAL * np.abs(tracks.ratio - mean) / expected_width(tracks)


def _one_species(tracks: TpcTracks) -> NDArray[np.float32]:
    return np.delete(_seen(tracks), list(COLUMNS).index("mass"), axis=1)


def _of_species(models: dict[int, Any], tracks: TpcTracks) -> F64:
    found, kind = np.full(len(tracks.signal), np.nan), tracks.species
    for k, model in models.items():
        mine = kind == k
        if mine.any():
            found[mine] = model.predict(_one_species(tracks.take(mine)))
    return found
