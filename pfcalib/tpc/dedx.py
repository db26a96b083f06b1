"""Energy loss of charged particles in a time projection chamber: what is expected, tracks of known
particles, and tables of tracks that users own.

The expected signal is the formula of ALEPH for the Bethe-Bloch curve with the parameters of the
TPC of ALICE, and its width the parametrisation that goes with it (AliceO2Group/O2Physics,
Common/Core/PID/TPCPIDResponse.h). Real signals differ from it with everything that a track and its
surroundings have; `distortion` is such a difference of our own making, known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from particle import Particle

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.rootfile import read_flat

F64 = NDArray[np.float64]
ALEPH = (0.0320981, 19.9768, 2.52666e-16, 2.72123, 6.08092)
MIP = 50.0  # signal of a particle of minimum ionisation
SIMPLE_WIDTH = 0.07  # relative, of all tracks, before it is parametrised
# of the parametrised width, in the order of the source
WIDTH = (5.43799e-7, 0.053044, 0.667584, 0.0142667, 0.00235175, 1.22482, 2.3501e-7, 0.031585)
N_CLUSTERS = 152  # rows of pads
MULTIPLICITY, OCCUPANCY = 11_000.0, 60_000.0  # by which both are divided
SPECIES = {"electron": 11, "pion": 211, "kaon": 321, "proton": 2212}  # by their PDG numbers
MASS = {  # GeV
    name: (Particle.from_pdgid(number).mass or 0.0) / 1e3 for name, number in SPECIES.items()
}
# what a network sees of a track, and what O2Physics calls it in its trees of V0 daughters
COLUMNS = {
    "momentum": "fTPCInnerParam",  # GeV, at the inner wall
    "tan_lambda": "fTgl",  # of the angle to the plane across the beam
    "signed_inverse_pt": "fSigned1Pt",  # 1/GeV
    "mass": "fMass",  # GeV, of what the particle is taken for
    "multiplicity": "fNormMultTPC",  # tracks of the event over MULTIPLICITY
    "few_clusters": "fNormNClustersTPC",  # square root of N_CLUSTERS over those found
    "occupancy": "fFt0Occ",  # of neighbouring collisions, over OCCUPANCY
}
SIGNAL = "fTPCSignal"


@dataclass(frozen=True, kw_only=True)
class PidConfig:
    """Which tracks to make.

    Parameters
    ----------
    n_tracks : int
    shares : (float, float, float, float)
        Of the SPECIES.
    p_range : (float, float), GeV
    seed : int
    distorted : bool
        Whether signals differ from the expected ones by `distortion`.
    """

    n_tracks: int = 100_000
    shares: tuple[float, float, float, float] = (0.2, 0.4, 0.1, 0.3)
    p_range: tuple[float, float] = (0.15, 15.0)
    seed: int = 1
    distorted: bool = True

    def __post_init__(self) -> None:
        low, high = self.p_range
        if self.n_tracks < 1 or not 0.0 < low < high or abs(sum(self.shares) - 1.0) > 1e-6:
            raise ConfigError(
                f"PidConfig: expected tracks, 0 < lowest < highest momentum and shares that add up "
                f"to 1, not {self}"
            )


class TpcTracks(NamedTuple):
    """Tracks of known particles."""

    columns: F64  # (n, len(COLUMNS))
    signal: F64  # (n,) in units of MIP / 50

    def __getattr__(self, name: str) -> F64:
        """A column by name, (n,)."""
        if name in COLUMNS:
            return self.columns[:, list(COLUMNS).index(name)]
        raise AttributeError(name)

    @property
    def ratio(self) -> F64:
        """Signal over the expected one, (n,)."""
        return self.signal / expected_signal(self.momentum / self.mass)

    @property
    def species(self) -> NDArray[np.int64]:
        """Place in SPECIES by the mass, (n,)."""
        return np.argmin(np.abs(self.mass[:, None] - list(MASS.values())), axis=1)

    def taken_for(self, species: str) -> Self:
        """The same tracks with the mass of one of SPECIES."""
        columns = self.columns.copy()
        columns[:, list(COLUMNS).index("mass")] = MASS[species]
        return type(self)(columns, self.signal)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Some of the tracks."""
        return type(self)(self.columns[rows], self.signal[rows])


def expected_signal(beta_gamma: ArrayLike) -> F64:
    """Signal of a particle of charge 1 by the formula of ALEPH.

    >>> round(float(expected_signal(3.5)), 1)
    47.7
    """
    p1, p2, p3, p4, p5 = ALEPH
    bg = np.asarray(beta_gamma, dtype=np.float64)
    beta = (bg / np.sqrt(1.0 + bg**2)) ** p4
    return np.asarray(MIP * p1 / beta * (p2 - beta - np.log(p3 + bg**-p5)))


def expected_width(tracks: TpcTracks) -> F64:
    """Parametrised width of the signal over the expected one, (n,)."""
    loss = expected_signal(tracks.momentum / tracks.mass) / MIP
    a = WIDTH
    shifted = tracks.momentum * (1.0 + a[3] * np.sqrt(loss))
    momentum = np.abs(expected_signal(shifted / tracks.mass) / MIP - loss) / loss
    short = 1.0 / loss / np.sqrt(1.0 + tracks.tan_lambda**2)
    square = (
        a[0] ** 2 / loss
        + a[1] ** 2 * tracks.few_clusters * a[5] * short ** a[2]
        + tracks.few_clusters * momentum**2
        + (a[4] * tracks.signed_inverse_pt) ** 2
        + (a[6] * tracks.multiplicity) ** 2
        + (a[7] * tracks.multiplicity * short) ** 2
    )
    return np.asarray(np.sqrt(square))


def distortion(tracks: TpcTracks) -> tuple[F64, F64]:
    """True mean of the signal over the expected one, and true width over the parametrised one,
    (n,) each.

    Made up, of the size and kind that is seen in data: a curve that does not quite fit, some per
    cent, the less ionisation the larger; a baseline that sinks under the signals of other tracks,
    up to ten per cent and the more the less a track ionises; charge that is lost on long ways of
    drift, that is at small angles, the more the denser it is; turns of sign with the bending.
    Effects multiply, so that no sum of functions of one quantity each describes them.
    """
    bg = tracks.momentum / tracks.mass
    loss = expected_signal(bg) / MIP
    steep = np.abs(tracks.tan_lambda)
    crowd = tracks.multiplicity + 0.5 * tracks.occupancy
    mean = 1.0 + 0.025 * np.sin(1.3 * np.log(bg)) - 0.03 * np.exp(-bg / 0.5)
    mean *= 1.0 - 0.10 * crowd * (1.0 - 0.6 * steep) / loss**0.4
    mean *= 1.0 - 0.03 * (1.0 - steep) * (1.0 - 1.0 / loss)
    mean *= 1.0 + 0.02 * np.tanh(tracks.signed_inverse_pt) * tracks.tan_lambda
    mean *= 1.0 + 0.05 * (tracks.few_clusters - 1.1) * (1.0 - 0.5 * crowd)
    width = (1.0 + 0.5 * crowd * (1.0 - 0.5 * steep)) * (1.0 + 0.15 * np.exp(-bg))
    return mean, width * (1.0 + 0.1 * np.cos(2.0 * np.log(bg)))


def simulate_tracks(config: PidConfig) -> TpcTracks:
    """Tracks as of daughters of V0 decays, conversions and kaons of known kind: momenta from soft
    to hard as falling powers, all angles of the barrel, events from empty to central.
    """
    rng, n = np.random.default_rng(config.seed), config.n_tracks
    mass = np.array(list(MASS.values()))[rng.choice(len(MASS), n, p=np.array(config.shares))]
    low, high = np.log(config.p_range)
    momentum = np.exp(low + (high - low) * rng.beta(1.3, 2.2, n))
    tan_lambda = np.sinh(rng.uniform(-0.9, 0.9, n))
    inverse = rng.choice([-1.0, 1.0], n) * np.sqrt(1.0 + tan_lambda**2) / momentum
    multiplicity = np.minimum(rng.exponential(0.25, n), 1.2)
    occupancy = np.minimum(rng.gamma(2.0, 0.15, n) * (1.0 + multiplicity), 1.5)
    found = rng.binomial(N_CLUSTERS, np.clip(rng.beta(9.0, 1.3, n) - 0.1 * multiplicity, 0.3, 1.0))
    few = np.sqrt(N_CLUSTERS / np.maximum(found, 40))
    columns = np.column_stack([momentum, tan_lambda, inverse, mass, multiplicity, few, occupancy])
    bare = TpcTracks(columns, np.ones(n))
    mean, width = distortion(bare) if config.distorted else (np.ones(n), np.ones(n))
    ratio = mean + width * expected_width(bare) * rng.standard_normal(n)
    return TpcTracks(columns, ratio * expected_signal(momentum / mass))


def read_tracks(path: str | Path, *, tree: str | None = None) -> TpcTracks:
    """Tracks of a table that a user owns, with a row a track.

    Parameters
    ----------
    path : path
        A parquet file, or a ROOT file with a tree, with the columns of COLUMNS and SIGNAL by their
        names here or in O2Physics; those that normalise are told there.
    tree : str, optional
        Of the ROOT file, if it holds several.

    Raises
    ------
    BadFileError
        If the file is not readable, or a column is missing or holds what is no finite number.
    """
    where, wanted = str(path), {**COLUMNS, "signal": SIGNAL}
    names = [*wanted, *wanted.values()]
    parquet = where.endswith(".parquet")
    table = _parquet(where) if parquet else read_flat(where, names, tree=tree)
    columns = {}
    for name, theirs in wanted.items():
        key = name if name in table else theirs
        if key not in table:
            raise BadFileError(
                f"{where}: no column {name!r} or {theirs!r}; it has {', '.join(table)}"
            )
        values = np.asarray(table[key], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if values.ndim != 1 or len(bad):
            raise BadFileError(
                f"{where}: {key}, row {bad[0] if len(bad) else 0}: expected one finite number a "
                "track"
            )
        columns[name] = values
    for name in ("momentum", "mass", "few_clusters"):
        bad = np.flatnonzero(~(columns[name] > 0.0))
        if len(bad):
            raise BadFileError(
                f"{where}: {name}, row {bad[0]}: {columns[name][bad[0]]}, expected above 0"
            )
    signal = columns.pop("signal")
    return TpcTracks(np.column_stack(list(columns.values())), signal)


def _parquet(path: str) -> dict[str, NDArray[np.float64]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ConfigError(f"{path}: needs pyarrow: pip install 'pfcalib[tables]'") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowInvalid) as error:
        raise BadFileError(f"{path}: not readable as parquet ({error})") from error
    return {name: table[name].to_numpy() for name in table.column_names}
