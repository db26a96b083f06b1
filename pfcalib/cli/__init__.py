"""The command ``pfcalib``: every step of the corridor from a shell, one module a verb.

Heavy modules are imported inside the verbs, and only here, so that ``pfcalib --help`` answers at
once.
"""

from __future__ import annotations

import sys
from concurrent.futures import BrokenExecutor
from typing import Annotated

import typer

import pfcalib
from pfcalib.cache import describe_storage_error
from pfcalib.cli.apply import apply
from pfcalib.cli.compare import compare
from pfcalib.cli.convert import convert
from pfcalib.cli.derive_eoverp import derive_eoverp
from pfcalib.cli.derive_lcw import derive_lcw
from pfcalib.cli.example import example
from pfcalib.cli.export_keras import export
from pfcalib.cli.graph import graph
from pfcalib.cli.index import index
from pfcalib.cli.inspect import inspect
from pfcalib.cli.list import list_studies
from pfcalib.cli.pflow import pflow
from pfcalib.cli.plan import plan
from pfcalib.cli.readme import readme
from pfcalib.cli.refine_showers import refine_showers
from pfcalib.cli.report import report
from pfcalib.cli.run import run
from pfcalib.cli.serve import serve
from pfcalib.cli.simulate import simulate
from pfcalib.cli.simulate_events import simulate_events
from pfcalib.cli.sweep import sweep
from pfcalib.cli.train import train
from pfcalib.cli.tune import tune
from pfcalib.cli.tune_showers import tune_showers
from pfcalib.cli.validate import validate
from pfcalib.cli.verify import verify
from pfcalib.errors import PfcalibError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for verb in [
    *(simulate, simulate_events, example, inspect, convert, derive_lcw, train, apply, tune),
    *(tune_showers, refine_showers, derive_eoverp, pflow, export, validate, serve),
    *(run, report, plan, graph, sweep, verify, compare, index, readme),
]:
    app.command()(verb)  # type: ignore[type-var]
app.command(name="list")(list_studies)


def main() -> None:
    """Entry point: errors that the user can mend become one line on standard error and exit code
    1.
    """
    try:
        app()
    except PfcalibError as error:
        one_line = " ".join(str(error).split())
        sys.exit(f"pfcalib: {one_line}")
    except BrokenExecutor:
        sys.exit(
            "pfcalib: a worker process was killed, by hand or for lack of memory; call again, with "
            "fewer --workers if memory was short"
        )
    except MemoryError as error:
        sys.exit(f"pfcalib: out of memory: {error or 'ask for less at once'}")
    except OSError as error:
        if text := describe_storage_error(error):
            sys.exit(f"pfcalib: {text}")
        raise


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pfcalib {pfcalib.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Tell the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """Calorimeter clusters to validated networks. Energies in GeV, lengths in mm, angles in rad."""
