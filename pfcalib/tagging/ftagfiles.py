"""Jets with tracks, in memory and in the h5 files of flavour tagging: one dataset of jets, one of
tracks, padded with zeros (the layout that umami, salt and atlas-ftag-tools share).

In memory energies are in GeV. Public files hold MeV, and so do those written here; the attribute
``energy_unit`` of a file, ``GeV`` or ``MeV``, says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.split import FRACTIONS, split_of

JETS, TRACKS, VALID = "jets", "tracks", "valid"  # datasets, and the field of what is no padding
MAX_TRACKS = 40
LABEL = "HadronConeExclTruthLabelID"
B_JET, C_JET, LIGHT_JET, TAU_JET = 5, 4, 0, 15  # values of LABEL
FLAVOURS = {B_JET: "b jets", C_JET: "c jets", LIGHT_JET: "light jets", TAU_JET: "tau jets"}
# values of ftagTruthOriginLabel, and of ftagTruthVertexIndex: no vertex, and the primary one; the
# others count from 1, those closer than 0.1 mm as one
ORIGINS = ("pile-up", "fake", "primary", "from B", "from B to C", "from C", "from tau", "other")
PILE_UP, FAKE, PRIMARY, FROM_B, FROM_BC, FROM_C, FROM_TAU, OTHER = range(len(ORIGINS))
NO_VERTEX, PRIMARY_VERTEX = -2, 0
JET_FIELDS: dict[str, str] = {
    "pt": "f4",  # GeV, as measured
    "eta": "f4",
    "phi": "f4",
    "mass": "f4",  # GeV
    "energy": "f4",  # GeV
    LABEL: "i4",
    "HadronConeExclTruthLabelPt": "f4",  # GeV, of the hadron that gives the label; NaN without
    "HadronConeExclTruthLabelLxy": "f4",  # mm, how far from the beam it decays; NaN without
    "ptFromTruthDressedWZJet": "f4",  # GeV, true, with muons and neutrinos of hadrons
    "n_tracks": "i4",  # also those beyond MAX_TRACKS
    "mcChannelNumber": "i4",  # of the process
    "eventNumber": "i8",
}
TRACK_INPUTS = (  # of GN2
    *("qOverP", "deta", "dphi", "d0", "z0SinTheta"),  # 1/GeV; from the jet; mm
    *("qOverPUncertainty", "thetaUncertainty", "phiUncertainty"),
    *("lifetimeSignedD0Significance", "lifetimeSignedZ0SinThetaSignificance"),
    *("numberOfPixelHits", "numberOfSCTHits"),
    *("numberOfInnermostPixelLayerHits", "numberOfNextToInnermostPixelLayerHits"),
    *("numberOfInnermostPixelLayerSharedHits", "numberOfInnermostPixelLayerSplitHits"),
    *("numberOfPixelSharedHits", "numberOfPixelSplitHits", "numberOfSCTSharedHits"),
)
TRACK_FIELDS: dict[str, str] = {
    **{name: "u1" if name.startswith("numberOf") else "f4" for name in TRACK_INPUTS},
    "pt": "f4",  # GeV
    "d0Uncertainty": "f4",  # mm
    "z0SinThetaUncertainty": "f4",  # mm
    "leptonID": "i1",  # 11 for an electron, 13 for a muon that is identified, else 0
    "ftagTruthOriginLabel": "i1",
    "ftagTruthVertexIndex": "i1",
    VALID: "?",
}
FIELDS = {JETS: JET_FIELDS, TRACKS: TRACK_FIELDS}
# what older files call them
ALIASES = {
    "lifetimeSignedD0Significance": "IP3D_signed_d0_significance",
    "lifetimeSignedZ0SinThetaSignificance": "IP3D_signed_z0_significance",
    "ftagTruthOriginLabel": "truthOriginLabel",
    "ftagTruthVertexIndex": "truthVertexIndex",
}
UNITS = {"GeV": 1.0, "MeV": 1e-3}  # GeV
# powers of the unit of energy
_ENERGIES = {
    **dict.fromkeys(("pt", "mass", "energy"), 1),
    **dict.fromkeys(("HadronConeExclTruthLabelPt", "ptFromTruthDressedWZJet"), 1),
    **dict.fromkeys(("qOverP", "qOverPUncertainty"), -1),
}
_BLOCK = 2048  # jets of one compressed chunk


def structure(dataset: str, fields: Iterable[str] | None = None) -> np.dtype[Any]:
    """Type of the rows of ``jets`` or ``tracks``, by default with all fields."""
    known = FIELDS[dataset]
    return np.dtype([(name, known[name]) for name in (known if fields is None else fields)])


@dataclass(frozen=True)
class TaggedJets:
    """Jets with their tracks, which are sorted by the size of their significance in d0, the largest
    first; behind the last one all is 0.
    """

    jets: NDArray[Any]  # (n,) with fields of JET_FIELDS
    tracks: NDArray[Any]  # (n, n_tracks) with fields of TRACK_FIELDS

    def __len__(self) -> int:
        return len(self.jets)

    def __getitem__(self, rows: slice | NDArray[Any]) -> TaggedJets:
        """Some of the jets."""
        return TaggedJets(self.jets[rows], self.tracks[rows])

    @property
    def label(self) -> NDArray[np.int32]:
        """B_JET, C_JET, LIGHT_JET or TAU_JET, shape (n,)."""
        return np.asarray(self.jets[LABEL])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which tracks are no padding, shape (n, n_tracks)."""
        return np.asarray(self.tracks[VALID])

    def inputs(self, fields: Sequence[str] = TRACK_INPUTS) -> NDArray[np.float32]:
        """Fields of the tracks as plain numbers, shape (n, n_tracks, n_fields)."""
        return np.stack([self.tracks[name].astype(np.float32) for name in fields], axis=-1)


def join_tagged(parts: Sequence[TaggedJets]) -> TaggedJets:
    """Jets of several samples, one after the other."""
    n = max(part.tracks.shape[1] for part in parts)
    return TaggedJets(
        np.concatenate([part.jets for part in parts]),
        np.concatenate([_widened(part.tracks, n) for part in parts]),
    )


def _widened(tracks: NDArray[Any], n: int) -> NDArray[Any]:
    """With padding up to n tracks."""
    wide = np.zeros((len(tracks), n), tracks.dtype)
    wide[:, : tracks.shape[1]] = tracks
    return wide


def split_by_event(
    sample: TaggedJets, *, fractions: Sequence[float] = FRACTIONS, salt: int = 0
) -> NDArray[np.int8]:
    """0 training, 1 validation, 2 test for each jet, (n,); all jets of an event are in one.

    Raises
    ------
    ConfigError
        If the sample has no ``eventNumber``, or by `split_of`.
    """
    names = sample.jets.dtype.names or ()
    if "eventNumber" not in names:
        raise ConfigError(f"{JETS}: no field eventNumber, by which jets are split")
    number = sample.jets["eventNumber"].astype(np.int64)
    if "mcChannelNumber" in names:
        number = number + (sample.jets["mcChannelNumber"].astype(np.int64) << 40)
    return split_of(number, fractions=fractions, salt=salt)


def write_tagged(path: Path, sample: TaggedJets, *, unit: str = "MeV") -> None:
    """Write an h5 file, completely or not at all.

    Parameters
    ----------
    path : Path
    sample : TaggedJets
    unit : str
        Of energies in the file: MeV as in public ones, or GeV.

    Raises
    ------
    BadFileError
        If the sample is none: see `read_tagged`.
    """
    scale = _scale(unit, str(path))
    _check(str(path), sample)
    with new_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["energy_unit"] = unit
        for name, table in ((JETS, sample.jets), (TRACKS, sample.tracks)):
            chunks = (min(_BLOCK, max(len(table), 1)), *table.shape[1:])
            file.create_dataset(
                name, data=_scaled(table, 1.0 / scale), compression="lzf", chunks=chunks
            )


def read_tagged(
    path: Path,
    fields: dict[str, Sequence[str]] | None = None,
    rows: slice | None = None,
    *,
    unit: str | None = None,
) -> TaggedJets:
    """Jets with tracks of an h5 file, whoever wrote it.

    Parameters
    ----------
    path : Path
    fields : dict, optional
        Names to be read of ``jets`` and of ``tracks``; by default those of JET_FIELDS and
        TRACK_FIELDS that the file has.
    rows : slice, optional
        Which jets; by default all.
    unit : str, optional
        Of energies, GeV or MeV; by default what the file says, and MeV if it says nothing.

    Raises
    ------
    BadFileError
        If it is no such file, or a dataset or field is missing or of another kind than expected;
        the message names file, dataset and field.
    """
    asked = fields or {}
    try:
        with h5py.File(path) as file:
            scale = _scale(unit or str(file.attrs.get("energy_unit", "MeV")), str(path))
            tables = [
                _scaled(_read(file, str(path), name, asked.get(name), rows), scale)
                for name in (JETS, TRACKS)
            ]
    except OSError as error:
        raise BadFileError(f"{path}: expected an h5 file of jets with tracks: {error}") from error
    sample = TaggedJets(*tables)
    _check(str(path), sample)
    return _packed(sample)


def _scale(unit: str, path: str) -> float:
    if unit not in UNITS:
        raise ConfigError(f"{path}: energies in {unit!r}, expected one of {', '.join(UNITS)}")
    return UNITS[unit]


def _read(
    file: h5py.File, path: str, name: str, fields: Sequence[str] | None, rows: slice | None
) -> NDArray[Any]:
    """One dataset with our names and types; _check says whether it is what it must be."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.names is None:
        raise BadFileError(
            f"{path}: {name}: expected a dataset with named fields; the file has "
            f"{', '.join(file) or 'nothing'}"
        )
    held = set(dataset.dtype.names)
    source = {
        field: field if field in held else ALIASES.get(field, field) for field in FIELDS[name]
    }
    if fields is None:
        fields = [field for field in FIELDS[name] if source[field] in held]
    for field in fields:
        if field not in source:
            raise ConfigError(
                f"{name}: field {field!r} is not known, expected one of {', '.join(source)}"
            )
        if source[field] not in held:
            raise BadFileError(f"{path}: {name}: no field {field}")
        if dataset.dtype[source[field]].kind not in "fiub":
            raise BadFileError(
                f"{path}: {name}: {field} is of type {dataset.dtype[source[field]]}, expected "
                "numbers"
            )
    needed = [VALID] if name == TRACKS and VALID in held else []
    fields = list(dict.fromkeys([*fields, *needed]))
    if not fields:
        raise BadFileError(
            f"{path}: {name}: none of the fields {', '.join(FIELDS[name])}; it has "
            f"{', '.join(sorted(held))}"
        )
    chosen = dataset.fields([source[field] for field in fields])[rows or slice(None)]
    table = np.empty(chosen.shape, structure(name, fields))
    for field in fields:
        table[field] = chosen[source[field]]
    return table


def _scaled(table: NDArray[Any], scale: float) -> NDArray[Any]:
    """With energies times a number."""
    if scale == 1.0:
        return table
    table = table.copy()
    for name in set(table.dtype.names or ()) & set(_ENERGIES):
        table[name] *= np.float32(scale ** _ENERGIES[name])
    return table


def _packed(sample: TaggedJets) -> TaggedJets:
    """With all tracks of a jet before its padding, and zeros in that."""
    valid = sample.valid
    tracks = sample.tracks.copy()
    tracks[~valid] = np.zeros((), tracks.dtype)
    if np.any(valid[:, 1:] & ~valid[:, :-1]):
        order = np.argsort(~valid, axis=1, kind="stable")
        tracks = np.take_along_axis(tracks, order, axis=1)
    return TaggedJets(sample.jets, tracks)


def _check(path: str, sample: TaggedJets) -> None:
    """Raise BadFileError unless shapes, labels and padding are right."""
    jets, tracks = sample.jets, sample.tracks
    if jets.ndim != 1 or tracks.ndim != 2 or len(jets) != len(tracks):
        raise BadFileError(
            f"{path}: {JETS} of shape {jets.shape} and {TRACKS} of {tracks.shape}: expected (n,) "
            "and (n, number of tracks)"
        )
    if VALID not in (tracks.dtype.names or ()):
        raise BadFileError(f"{path}: {TRACKS}: no field {VALID}, which tells tracks from padding")
    valid = tracks[VALID]
    for name in jets.dtype.names or ():
        if name in ("pt", "eta", "phi", "mass", "energy"):
            _finite(path, JETS, name, jets[name], np.ones(len(jets), bool))
    for name in tracks.dtype.names or ():
        if tracks.dtype[name].kind == "f":
            _finite(path, TRACKS, name, tracks[name], valid)
    if LABEL in (jets.dtype.names or ()) and not np.isin(jets[LABEL], list(FLAVOURS)).all():
        found = sorted(set(jets[LABEL].tolist()) - set(FLAVOURS))
        raise BadFileError(
            f"{path}: {JETS}: {LABEL} = {found[0]}: expected {', '.join(map(str, FLAVOURS))}"
        )


def _finite(
    path: str, dataset: str, name: str, values: NDArray[Any], counts: NDArray[np.bool_]
) -> None:
    bad = np.argwhere(~np.isfinite(values) & counts)
    if len(bad):
        raise BadFileError(
            f"{path}: {dataset}: {name} of jet {bad[0][0]} = {values[tuple(bad[0])]}: expected "
            "finite"
        )
