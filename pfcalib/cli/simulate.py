"""The command that makes samples: single particles by the fast engine, by Geant4 or by generators
of showers, dijets, or jets with tracks.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from pfcalib.cli.console import Force, Seed, progress_bar, require_free, say
from pfcalib.errors import ConfigError

ONLY_FOR = {
    "guns": ("particles", "e_min", "e_max", "grid"),
    "dijets": ("pt_hat_min", "pt_hat_max"),
    "tagging": ("collisions",),
}
_NOT_FOR_TAGGING = ("eta_max", "engine", "generator", "noise", "thresholds", "shard")


def simulate(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(help="ROOT file to be written, of tagging an h5 file.", show_default=False),
    ],
    n_events: Annotated[
        int, typer.Option("--events", "-n", min=1, help="Events; a gun shoots one particle each.")
    ] = 10_000,
    process: Annotated[
        str,
        typer.Option(
            help="guns (single particles), dijets (in the barrel) or tagging (jets with tracks, "
            "for flavour tagging); the last two by Pythia 8, an extra."
        ),
    ] = "guns",
    particles: Annotated[
        str,
        typer.Option(
            help="Guns: particles, drawn with equal shares: pi0, pi+, pi-, gamma, e-, e+, mu-, "
            "mu+, K+, K-, K0L, K0S, p, pbar, n, nbar."
        ),
    ] = "pi0,pi+,pi-",
    e_min: Annotated[float, typer.Option(help="Guns: lowest energy, GeV; flat in log E.")] = 0.2,
    e_max: Annotated[float, typer.Option(help="Guns: highest energy, GeV.")] = 2000.0,
    pt_hat_min: Annotated[
        float,
        typer.Option(
            help="Dijets: lowest transverse momentum of the hard scattering, GeV; flat in its log."
        ),
    ] = 20.0,
    pt_hat_max: Annotated[
        float, typer.Option(help="Dijets: highest transverse momentum of the hard scattering, GeV.")
    ] = 200.0,
    collisions: Annotated[
        str,
        typer.Option(
            help="Tagging: ttbar (top quarks) or zprime (heavy Z bosons, flat in pT to 2500 GeV)."
        ),
    ] = "ttbar",
    eta_max: Annotated[
        float | None,
        typer.Option(
            help="Largest |eta| of particles, a pure number. By default 0.7, on the window 0.05, "
            "for dijets 0.8.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="fast (parametrised showers), geant4 (a second of one core for some 10 GeV) or "
            "generator (see --generator)."
        ),
    ] = "fast",
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Folder with generators of showers, such as study 51 writes: photon and pion, or "
            "photon.hdf5 and pion.hdf5 in the layout of the CaloChallenge. Guns of pi0, gamma, pi+ "
            "and pi- on the window.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(
            help="Guns: barrel (64,000 cells) or window (1,000 cells, the Geant4 reference)."
        ),
    ] = "barrel",
    noise: Annotated[
        str,
        typer.Option(
            help="nominal (electronics) or pileup (and a term that grows with mu, 40 interactions)."
        ),
    ] = "nominal",
    mu: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Mean number of interactions per crossing; by default that of --noise, for "
            "tagging 35.",
        ),
    ] = None,
    thresholds: Annotated[
        str,
        typer.Option(
            help="Clustering: seed, growth and boundary, in units of the noise of a cell."
        ),
    ] = "4,2,0",
    seed: Seed = 1,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the work; the output is the same.")
    ] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, hidden=True, help="Old name of --workers.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="K/N, such as 2/10: only that part of the events; the N files are the sample.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Shoot particles or make dijets, cluster their showers and write a sample; or make jets with
    tracks, in the h5 layout of umami and salt.

    Example: pfcalib simulate pions.root --events 600 --e-min 1 --e-max 100
    """
    require_free(output, force)
    if process not in ONLY_FOR:
        raise ConfigError(f"--process must be one of {', '.join(ONLY_FOR)}, not {process!r}")
    for other, names in ONLY_FOR.items():
        strange = [
            f"--{name.replace('_', '-')}"
            for name in names
            if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ]
        if other != process and strange:
            raise ConfigError(
                f"{', '.join(strange)}: only for --process {other}, not for {process}"
            )
    if process == "tagging":
        strange = [
            f"--{name.replace('_', '-')}"
            for name in _NOT_FOR_TAGGING
            if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ]
        if strange:
            raise ConfigError(f"{', '.join(strange)}: not for --process tagging")
        _simulate_tagging(output, collisions, n_events, seed, mu, processes or workers)
        return
    from pfcalib.samples.rootfile import open_sample, read_metadata
    from pfcalib.simulation.produce import MIN_CLUSTER_E, ProduceConfig, produce_sample
    from pfcalib.simulation.pythia import DijetConfig
    from pfcalib.simulation.shards import Shard, produce_shard

    if (engine == "generator") != (generator is not None):
        raise ConfigError("--engine generator and --generator FOLDER go together")
    if generator and shard:
        raise ConfigError("--shard: not for --engine generator")
    made_by = "fast" if generator else engine
    settings: dict[str, Any] = {"n_events": n_events, "engine": made_by, "grid": grid, "seed": seed}
    settings |= {"noise": noise, "mu": mu, "thresholds": parse_thresholds(thresholds)}
    if process == "dijets":
        limit = {} if eta_max is None else {"eta_max": eta_max}
        dijets = DijetConfig(pt_hat_min=pt_hat_min, pt_hat_max=pt_hat_max, **limit)
        settings |= {"dijets": dijets, "chunk": 128}
    else:
        names = tuple(name.strip() for name in particles.split(","))
        eta = eta_max if eta_max is not None else 0.05 if grid == "window" else 0.7
        settings |= {"particles": names, "e_min": e_min, "e_max": e_max, "eta_max": eta}
    config = ProduceConfig(**settings, n_processes=processes or workers)
    part = Shard.parse(shard) if shard else None
    expected = n_events if part is None else len(part.chunks(config)) * config.chunk
    with progress_bar("events", min(expected, n_events)) as advance:
        if generator:
            from pfcalib.fastsim.generated import produce_generated

            produce_generated(output, config, generator, progress=advance)
        elif part is None:
            produce_sample(output, config, progress=advance)
        else:
            produce_shard(output, config, part, progress=advance)
    with open_sample(output) as file:
        metadata = read_metadata(output, file)
    n_events, n_empty = metadata["n_events"], metadata["n_events_without_cluster"]
    say(
        f"{output}: {n_events - n_empty} of {n_events} events, {output.stat().st_size / 1e6:.1f} MB"
        + (f"; {n_empty} left no cluster above {MIN_CLUSTER_E:g} GeV" if n_empty else "")
    )


def _simulate_tagging(
    output: Path, collisions: str, n_events: int, seed: int, mu: float | None, workers: int
) -> None:
    from pfcalib.simulation.chunks import join_columns
    from pfcalib.simulation.pileup import in_order
    from pfcalib.tagging.ftagfiles import TaggedJets, write_tagged
    from pfcalib.tagging.trackjets import TaggedConfig, simulate_tagged

    config = TaggedConfig(process=collisions, n_events=n_events, seed=seed)
    if mu is not None:
        config = dataclasses.replace(config, mu=mu)
    make = functools.partial(simulate_tagged, config)
    parts = []
    with progress_bar("events", n_events) as advance:
        for part in in_order(make, range(-(-n_events // config.chunk)), workers):
            parts.append(part)
            advance(min(config.chunk, n_events - (len(parts) - 1) * config.chunk))
    sample = TaggedJets(**join_columns(parts))
    write_tagged(output, sample)
    size = output.stat().st_size / 1e6
    say(f"{output}: {len(sample)} jets of {n_events} events, {size:.1f} MB; energies in MeV")


def parse_thresholds(text: str) -> tuple[float, float, float]:
    """Three numbers from a text such as ``4,2,0``.

    Raises
    ------
    ConfigError
        If there are not three, or one is no number.

    >>> parse_thresholds("4,2,0")
    (4.0, 2.0, 0.0)
    """
    try:
        seed, growth, boundary = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--thresholds must be three numbers such as 4,2,0, not {text!r}"
        ) from None
    return seed, growth, boundary
