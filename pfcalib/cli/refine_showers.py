"""The command that learns the step from parametrised showers to those of Geant4."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, Reference, Seed, Steps, require_free, say
from pfcalib.errors import ConfigError


def refine_showers(
    showers: Reference,
    out: Annotated[Path, typer.Option(help="File of the numbers (.npz).", show_default=False)],
    species: Annotated[
        str, typer.Option(help="Of pi0 and pion (charged), such as pi0,pion.")
    ] = "pi0",
    copies: Annotated[
        int, typer.Option(min=1, help="Parametrised showers for each Geant4 pion.")
    ] = 4,
    networks: Annotated[
        int, typer.Option(min=1, help="Networks of the flow; the last only judges.")
    ] = 5,
    seed: Seed = 1,
    force: Force = False,
) -> None:
    """Learn to move parametrised showers to where Geant4's lie; one line for every network.

    Example: pfcalib refine-showers g4.root --out refinement.npz
    """
    from pfcalib.geometry import WINDOW
    from pfcalib.samples.showerfile import read_showers
    from pfcalib.simulation.refine import SPECIES, write_refinements
    from pfcalib.training.refine_fit import RefineFitConfig, fit_refinement

    require_free(out, force)
    wanted = species.split(",")
    if unknown := set(wanted) - set(SPECIES):
        raise ConfigError(f"unknown species {sorted(unknown)}; there are {', '.join(SPECIES)}")
    fit = RefineFitConfig(copies=copies, networks=networks, seed=seed)
    reference, _ = read_showers(showers, WINDOW)
    made = {}
    for name in wanted:
        say(name)
        made[name] = fit_refinement(reference, name, fit, say=Steps())
    write_refinements(out, made)
    say(f"{out}: {out.stat().st_size / 1000:.0f} kB")
