"""Where Geant4's data sets are: the user's own, or tables written from formulas."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pfcalib.cache import VARIABLE, cache_folder, cache_key, locked, new_folder
from pfcalib.errors import ConfigError
from pfcalib.simulation.geant4 import tables
from pfcalib.simulation.geant4.config import require_geant4

FOLDER = "GEANT4_DATA_DIR"
# variable: (name of the folder in GEANT4_DATA_DIR, but for the version; what the physics here reads
# in it)
NEEDED = {
    "G4LEDATA": ("G4EMLOW", ("brem_SB/br82", "epics2017/phot/pe-cs-82.dat")),
    "G4PARTICLEXSDATA": ("G4PARTICLEXS", ("neutron/inel26", "neutron/el26", "neutron/cap26")),
    "G4LEVELGAMMADATA": ("PhotonEvaporation", ()),
    "G4ENSDFSTATEDATA": ("G4ENSDFSTATE", ("ENSDFSTATE.dat",)),
}


class DataSets(NamedTuple):
    """Data that Geant4 will read."""

    environment: dict[str, str]  # what must be set before geant4_pybind is imported
    synthetic: bool  # True for tables from formulas
    # "Geant4 11.4.1" or "Geant4 11.4.1, synthetic tables": for logs, metadata and figures
    label: str

    def export(self) -> None:
        """Set the environment of this process.

        Raises
        ------
        ConfigError
            If geant4_pybind was imported before and reads other data.
        """
        other = [name for name, value in self.environment.items() if os.environ.get(name) != value]
        if other and "geant4_pybind" in sys.modules:
            raise ConfigError(
                f"geant4_pybind was imported before {other[0]} was set to "
                f"{self.environment[other[0]]}"
            )
        os.environ.update(self.environment)


def find_data(environment: Mapping[str, str] | None = None) -> DataSets:
    """The data sets that the environment names or, where it names none, tables from formulas,
    written once into the cache.

    Parameters
    ----------
    environment : mapping, optional
        ``os.environ`` by default. Read are GEANT4_DATA_DIR, the folder of all data sets; or
        G4LEDATA, G4PARTICLEXSDATA, G4LEVELGAMMADATA and G4ENSDFSTATEDATA; and PFCALIB_CACHE, the
        folder for tables (``~/.cache/pfcalib``).

    Raises
    ------
    ConfigError
        If geant4-pybind is missing, or data sets are named but incomplete.
    """
    require_geant4()
    environment = os.environ if environment is None else environment
    folders = configured_folders(environment)
    if folders is None:
        folder = synthetic_tables(Path(environment.get(VARIABLE) or cache_folder()).absolute())
        folders = {name: folder / start for name, (start, _) in NEEDED.items()}
    synthetic = any((folder.parent / tables.MARK).is_file() for folder in folders.values())
    variables = {
        FOLDER: str(folders["G4LEDATA"].parent),
        **{name: str(folder) for name, folder in folders.items()},
    }
    return DataSets(
        variables,
        synthetic,
        f"Geant4 {library_version()}{', synthetic tables' if synthetic else ''}",
    )


def configured_folders(environment: Mapping[str, str]) -> dict[str, Path] | None:
    """Folder of each data set that the environment names; None where it names none.

    Raises
    ------
    ConfigError
        If a folder or a file in it is missing: the message names the variable and what was
        expected.
    """
    named = {name: environment[name] for name in (FOLDER, *NEEDED) if environment.get(name)}
    if not named:
        return None
    folders = {}
    for name, (start, files) in NEEDED.items():
        if name in named:
            folder = Path(named[name]).absolute()
        elif FOLDER in named:
            found = [
                path for path in Path(named[FOLDER]).absolute().glob(f"{start}*") if path.is_dir()
            ]
            if not found:
                raise ConfigError(
                    f"{FOLDER}={named[FOLDER]} has no folder {start}*: complete it, set {name}, or "
                    "unset all for synthetic tables"
                )
            folder = max(
                found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)]
            )
        else:
            raise ConfigError(
                f"Geant4's data are named in part: {', '.join(named)} but not {name}; set it, or "
                "unset all for synthetic tables"
            )
        if not folder.is_dir():
            raise ConfigError(f"{name}={folder} is no folder")
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise ConfigError(
                f"{name}={folder} has no file {missing[0]}: expected Geant4's data set {start}"
            )
        folders[name] = folder
    return folders


def synthetic_tables(cache: Path) -> Path:
    """Folder of the tables from formulas in a cache, written now if it is not there; two processes
    may do so at once.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """
    folder = cache / f"geant4-tables-{cache_key('geant4_tables', library=library_version())}"
    if (folder / tables.MARK).is_file():
        return folder
    write = "from pfcalib.simulation.geant4.tables import write_tables; write_tables"
    try:
        with locked(folder):
            if not (folder / tables.MARK).is_file():
                with new_folder(folder) as temporary:
                    _ask(f"{write}({str(temporary)!r})", str(temporary))
    except OSError as error:
        raise ConfigError(
            f"cannot write Geant4's tables into {cache}: {error.strerror}; set PFCALIB_CACHE to a "
            "folder that can"
        ) from error
    return folder


@functools.cache
def library_version() -> str:
    """Version of the Geant4 inside geant4-pybind, such as "11.4.1"; asked for in a process of its
    own.
    """
    return parse_version(
        _ask("import geant4_pybind; print(geant4_pybind.G4Version)", tempfile.gettempdir())
    )


def parse_version(tag: str) -> str:
    """Version in Geant4's tag.

    >>> parse_version("$Name: geant4-11-04-patch-01 [MT]$"), parse_version("$Name: geant4-11-03 $")
    ('11.4.1', '11.3.0')
    """
    found = re.search(r"geant4-(\d+)-(\d+)(?:-patch-(\d+))?", tag)
    if found is None:
        raise ConfigError(
            f"Geant4 calls itself {tag!r}: expected geant4-<major>-<minor>-patch-<patch>"
        )
    return ".".join(str(int(number or 0)) for number in found.groups())


def _ask(code: str, folder: str) -> str:
    """What a fresh interpreter prints with geant4_pybind; it would ask for a download if it were
    not told of a folder.
    """
    environment = {**os.environ, FOLDER: folder}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise ConfigError(
            "geant4-pybind does not work here: "
            f"{(done.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    return done.stdout
