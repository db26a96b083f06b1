"""The command that makes events for particle flow: a hard collision with pile-up and tracks."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Force, RootOutput, Seed, progress_bar, require_free, say
from pfcalib.errors import ConfigError


def simulate_events(
    output: RootOutput,
    n_events: Annotated[int, typer.Option("--events", "-n", min=1, help="Events.")] = 1000,
    process: Annotated[
        str,
        typer.Option(
            help="Hard collision: dijets, z_jet (Z to two muons, and a jet) or minimum_bias."
        ),
    ] = "dijets",
    mu: Annotated[
        float, typer.Option(min=0, help="Mean number of other collisions in the crossing.")
    ] = 0.0,
    pt_hat: Annotated[
        str,
        typer.Option(
            help="Edges in GeV of the slices in the transverse momentum of the hard scattering; "
            "each slice has as many events, and weights."
        ),
    ] = "20,45,100,250",
    n_pool: Annotated[
        int, typer.Option("--pool", min=1, help="Collisions that pile-up is drawn from; kept.")
    ] = 2000,
    pool_seed: Annotated[
        int, typer.Option(help="Of those. Events to train on and to test with want another pool.")
    ] = 1,
    seed: Seed = 1,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the work; the output is the same.")
    ] = 1,
    force: Force = False,
) -> None:
    """Make events with tracks, clusters and truth by cell and particle, in the layout MLTree.

    Example: pfcalib simulate-events events.root -n 20 --mu 40 --pool 200
    """
    require_free(output, force)
    from pfcalib.simulation.collisions import CollisionConfig
    from pfcalib.simulation.crossings import EventsConfig, produce_events

    try:
        edges = tuple(float(part) for part in pt_hat.split(","))
    except ValueError:
        raise ConfigError(
            f"--pt-hat must be numbers such as 20,45,100,250, not {pt_hat!r}"
        ) from None
    config = EventsConfig(
        n_events=n_events,
        collisions=CollisionConfig(process=process, pt_hat=edges),
        mu=mu,
        n_pool=n_pool,
        pool_seed=pool_seed,
        seed=seed,
        n_processes=workers,
    )
    with progress_bar("events", n_events) as advance:
        produce_events(output, config, progress=advance)
    say(f"{output}: {n_events} events, {output.stat().st_size / 1e6:.1f} MB")
