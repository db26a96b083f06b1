"""Tables from formulas that stand in for the evaluated data sets of Geant4 11, in the layout of its
files; about 2.5 MB.

They hold what FTFP_BERT and the standard electromagnetic physics read for the materials of the
slices. Photo-electric effect: Geant4's compiled-in Sandia coefficients. Bremsstrahlung: screened
Bethe-Heitler. Neutrons: Glauber-Gribov continued downwards and 1/v capture. Rayleigh scattering is
negligible, levels of nuclei are absent. They are no evaluated data: whatever is made with them must
say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.simulation.geant4 import formulas

MARK = "synthetic-tables.txt"  # tells a folder of these tables from one of data sets
ELEMENTS = {1: "H", 6: "C", 7: "N", 8: "O", 13: "Al", 18: "Ar", 26: "Fe", 29: "Cu", 82: "Pb"}
FOLDERS = ("G4EMLOW", "G4PARTICLEXS", "PhotonEvaporation", "G4ENSDFSTATE")
_LAST_ELEMENT = 92  # Geant4 reads neutron tables of all elements up to uranium
_PER_BARN = 1e-22  # mm2
_NONE = 1e-30


def write_tables(folder: str | Path) -> None:
    """Write all tables into a folder; needs geant4_pybind for the Sandia coefficients and atomic
    masses.

    Parameters
    ----------
    folder : path-like
        Existing folder; MARK is written last.
    """
    import geant4_pybind as g4

    folder = Path(folder)
    nist = g4.G4NistManager.Instance()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "G4ENSDFSTATE" / "ENSDFSTATE.dat").touch()
    for z, symbol in ELEMENTS.items():
        write_photons(folder / "G4EMLOW", z, nist.FindOrBuildMaterial(f"G4_{symbol}"), barn=g4.barn)
        write_bremsstrahlung(folder / "G4EMLOW" / "brem_SB" / f"br{z}", z)
    for z in range(1, _LAST_ELEMENT + 1):
        write_neutrons(folder / "G4PARTICLEXS" / "neutron", z, nist.GetAtomicMassAmu(z))
    (folder / MARK).write_text(f"{__doc__}", encoding="utf-8")


def write_photons(folder: Path, z: int, material: Any, *, barn: float) -> None:
    """Photo-electric and Rayleigh cross sections in both layouts that Geant4 11 knows.

    The table of the photo-electric effect holds E^3 sigma (barn MeV^3); its parametrisations start
    beyond all energies. Rayleigh scattering is switched off by a vanishing cross section. Layout:
    D. E. Cullen, EPICS2017, IAEA-NDS-224 (2018), as converted for G4EMLOW.
    """
    energy = np.geomspace(1e-4, 100.0, 400)
    edges, coefficients = sandia_coefficients(material)
    per_atom = coefficients / material.GetTotNbOfAtomsPerVolume() / barn
    sigma = np.maximum(formulas.photoelectric(energy, edges, per_atom), _NONE)
    # one shell of 0.1 keV and a parametrisation above 1e9 MeV
    unused = "1 1 1e9\n1e-4 0 0 0 0 0 0\n"
    wide = np.geomspace(1e-4, 1e5, 50)
    for path in ("livermore/phot_epics2014", "epics2017/phot"):
        _write(folder / path / f"pe-cs-{z}.dat", format_vector(energy, sigma * energy**3))
        _write(folder / path / f"pe-high-{z}.dat", unused)
        _write(folder / path / f"pe-low-{z}.dat", unused)
    for path in ("livermore/rayl", "epics2017/rayl"):
        _write(folder / path / f"re-cs-{z}.dat", format_vector(wide, np.full_like(wide, _NONE)))
        _write(folder / path / f"re-ff-{z}.dat", format_vector(wide, np.full_like(wide, 1e-3)))


def sandia_coefficients(material: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower edges (n,) and coefficients (n, 4) of Geant4's Sandia table of a material, in its
    internal units.
    """
    table = material.GetSandiaTable()
    rows = [
        [table.GetSandiaCofForMaterial(i, j) for j in range(5)]
        for i in range(table.GetMatNbOfIntervals())
    ]
    values = np.array(rows, dtype=np.float64)
    return values[:, 0], values[:, 1:]


def write_bremsstrahlung(path: Path, z: int) -> None:
    """Scaled bremsstrahlung cross sections in the layout of Seltzer and Berger's tables: kappa = k
    / T across, ln(T / MeV) down.
    """
    kappa = np.concatenate([[0.0, 0.025, 0.05, 0.075], np.linspace(0.1, 1.0, 28)])
    log_kinetic = np.linspace(np.log(1e-3), np.log(1e4), 57)
    rows = [formulas.bremsstrahlung(z, float(np.exp(value)), kappa) for value in log_kinetic]
    lines = [
        f"0 {len(kappa)} {len(log_kinetic)}",
        *(" ".join(f"{value:.6g}" for value in row) for row in (kappa, log_kinetic, *rows)),
    ]
    _write(path, "\n".join(lines) + "\n")


def write_neutrons(folder: Path, z: int, mass: float) -> None:
    """Inelastic, elastic and capture cross sections of neutrons below 20 MeV, mm2 against MeV."""
    energy = np.geomspace(1e-11, 20.0, 240)
    tables = {
        "inel": formulas.neutron_inelastic(z, mass, energy),
        "el": formulas.neutron_elastic(z, mass, energy),
        "cap": formulas.neutron_capture(z, energy),
    }
    for name, sigma in tables.items():
        _write(folder / f"{name}{z}", format_vector(energy, sigma * _PER_BARN))


def format_vector(x: ArrayLike, y: ArrayLike) -> str:
    """A G4PhysicsVector as Geant4 stores it in text.

    >>> print(format_vector([1.0, 2.0], [0.5, 0.25]), end="")
    1 2 2
    2
    1 0.5
    2 0.25
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    lines = [
        f"{x[0]:.8g} {x[-1]:.8g} {len(x)}",
        str(len(x)),
        *(f"{a:.8g} {b:.8g}" for a, b in zip(x, y, strict=True)),
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
