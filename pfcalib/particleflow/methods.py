"""Ways to subtract by their name: how tracks are matched, and what they then take."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.calibration.rings import RingCells
from pfcalib.errors import ConfigError
from pfcalib.particleflow.deposit import network_deposit, table_deposit, truth_deposit
from pfcalib.particleflow.event import Event
from pfcalib.particleflow.learned import open_learned, read_cone
from pfcalib.particleflow.match import FlowConfig, Matches, matching
from pfcalib.particleflow.subtract import Removed, remove_whole, subtract_rings
from pfcalib.particleflow.truth import match_truth, remove_truth

SUBTRACTIONS = ("rings", "whole", "learned", "truth")
DEPOSITS = ("table", "network", "network_with_width", "truth")


class Method(NamedTuple):
    """A way from an event to what each track takes from each cell."""

    match: Callable[[Event, RingCells], Matches]
    removed: Removed


def build_method(
    subtraction: str = "rings",
    *,
    deposit: str = "table",
    table: EoverPTable | None = None,
    config: FlowConfig | None = None,
    shares: str | os.PathLike[str] | None = None,
    network: str | os.PathLike[str] | None = None,
) -> Method:
    """A method by name.

    Parameters
    ----------
    subtraction : str
        ``rings``, the published one; ``whole`` clusters; ``learned``, shares of cells by a network,
        of the cells that it was trained on, around the track or of matched clusters; ``truth``, the
        ideal case, which looks at neither deposits nor matches.
    deposit : str
        What a track is expected to leave: by the ``table`` of E/p, by a ``network`` of Athena's
        format, or the ``truth``. The width is that of the table, but in ``network_with_width``.
    table : EoverPTable, optional
        The packaged one by default.
    config : FlowConfig, optional
    shares, network : path-like, optional
        ONNX files that ``learned`` and ``network`` need.

    Raises
    ------
    ConfigError
        If there is no such name, or a file that it needs is not given.
    """
    for name, value, names in (
        ("subtraction", subtraction, SUBTRACTIONS),
        ("deposit", deposit, DEPOSITS),
    ):
        if value not in names:
            raise ConfigError(f"{name} must be one of {', '.join(names)}, not {value!r}")
    config, table = config or FlowConfig(), table or EoverPTable.load()
    if subtraction == "truth":
        return Method(partial(match_truth, config=config), remove_truth)
    if deposit.startswith("network"):
        expected = network_deposit(
            _given(network, f"deposit {deposit!r}"), table, with_width=deposit != "network"
        )
    else:
        expected = {"table": table_deposit, "truth": truth_deposit}[deposit](table)
    if subtraction == "learned":
        network_of_shares = _given(shares, "subtraction 'learned'")
        cone = read_cone(network_of_shares)
        return Method(matching(expected, config, cone=cone), open_learned(network_of_shares))
    removed = remove_whole if subtraction == "whole" else subtract_rings(table, config.whole_sigma)
    return Method(matching(expected, config), removed)


def _given(path: str | os.PathLike[str] | None, what: str) -> str | os.PathLike[str]:
    if path is None:
        raise ConfigError(f"{what} needs the ONNX file of a network")
    return path
