"""Samples that come with the package, so that everyone can test on the same showers."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pfcalib.errors import ConfigError

_FOLDER = Path(str(resources.files("pfcalib"))) / "data"


def packaged_samples() -> tuple[str, ...]:
    """Names of the packaged samples."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.root")))


def packaged_sample(name: str) -> Path:
    """Path of a packaged ROOT file, such as "geant4_pions"; what it holds and where it comes from
    stands in its metadata.

    Raises
    ------
    ConfigError
        If there is no sample of that name.
    """
    if name not in packaged_samples():
        raise ConfigError(
            f"no packaged sample {name!r}; there are: {', '.join(packaged_samples()) or 'none'}"
        )
    return _FOLDER / f"{name}.root"
