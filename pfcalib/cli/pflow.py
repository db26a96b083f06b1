"""The command that runs particle flow on a file of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pfcalib.cli.console import Force, progress_bar, require_free, say


def pflow(
    events: Annotated[
        Path,
        typer.Argument(
            help="MLTree ROOT file with clusters, cells and tracks, such as of `pfcalib "
            "simulate-events`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="ROOT file of objects to be written.")],
    subtraction: Annotated[
        str, typer.Option(help="rings (published), whole clusters, learned, or truth (simulation).")
    ] = "rings",
    deposit: Annotated[
        str,
        typer.Option(
            help="Expected deposit: table of E/p, network (Athena's format), network_with_width, "
            "or truth."
        ),
    ] = "table",
    table: Annotated[
        Path | None,
        typer.Option(
            help="Table of `pfcalib derive-eoverp`; by default the packaged one.",
            show_default=False,
        ),
    ] = None,
    shares: Annotated[
        Path | None, typer.Option(help="ONNX network of learned shares.", show_default=False)
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="ONNX network of deposits.", show_default=False)
    ] = None,
    pt_max: Annotated[float, typer.Option(help="Highest pT of tracks that are used, GeV.")] = 40.0,
    force: Force = False,
) -> None:
    """Subtract tracks from clusters, cell by cell, and write charged and neutral objects with links
    to tracks and clusters.

    Example: pfcalib pflow events.root --out objects.root
    """
    from pfcalib.cache import file_sha256
    from pfcalib.calibration.eoverp import EoverPTable
    from pfcalib.calibration.rings import ring_cells
    from pfcalib.particleflow.files import count_events, iterate_events, read_cells
    from pfcalib.particleflow.flow import run_flow
    from pfcalib.particleflow.match import FlowConfig
    from pfcalib.particleflow.methods import build_method
    from pfcalib.particleflow.stored import write_objects

    require_free(out, force)
    config = FlowConfig(pt_max=pt_max)
    method = build_method(
        subtraction, deposit=deposit, table=EoverPTable.load(table), config=config,
        shares=shares, network=network,
    )  # fmt: skip
    metadata = {"subtraction": subtraction, "deposit": deposit, "config": vars(config)}
    for name, path in (("table", table), ("shares", shares), ("network", network)):
        metadata |= {name: file_sha256(path)} if path else {}
    cells, n_charged = ring_cells(read_cells(events)), 0
    with progress_bar("events", count_events(events)) as advance:

        def flow() -> Iterator[tuple[Any, Any]]:
            nonlocal n_charged
            for event in iterate_events(events):
                objects = run_flow(event, cells, method)
                n_charged += len(objects.charged)
                yield event, objects
                advance(1)

        n_events = write_objects(out, flow(), metadata)
    say(f"{out}: {n_events} events, {n_charged} charged objects, {subtraction}")
