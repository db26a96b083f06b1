"""The style that all figures share: colours, looks of models, labels, sources.

A plot function takes arrays and results, draws, and returns the Axes; it computes nothing that a
study would quote. Every figure names its source, ``SIMULATION`` or ``GEANT4``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

SIMULATION = "pfcalib simulation"
GEANT4 = "Geant4 (synthetic tables)"
# of the set by Okabe and Ito, told apart by all readers
NEUTRAL, CHARGED, GREY = "#d55e00", "#0072b2", "#555555"
COLOURS = (NEUTRAL, CHARGED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLE: dict[Any, Any] = {
    **mplhep.style.ROOT,
    "font.size": 11.0,
    "axes.labelsize": 12.0,
    "axes.titlesize": 11.0,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "figure.figsize": (5.6, 4.2),
    "figure.dpi": 80,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "axes.linewidth": 1.0,
    "axes.autolimit_mode": "data",
    "axes.ymargin": 0.08,
    "axes.labelpad": 4,
    "xtick.major.size": 6,
    "xtick.minor.size": 3,
    "xtick.major.pad": 5,
    "xtick.minor.top": True,
    "ytick.major.size": 6,
    "ytick.minor.size": 3,
}
# the fonts of formulas are looked up when a figure is drawn, after its style has been left
for _kind in ("rm", "it", "bf", "sf", "tt", "cal"):
    plt.rc("mathtext", **{_kind: STYLE[f"mathtext.{_kind}"]})


class Look(NamedTuple):
    """How a model is drawn, the same in every figure."""

    colour: str
    label: str
    marker: str
    line: str = "-"


MODEL_LOOKS = {
    "likelihood": Look("#555555", "EM likelihood", "s"),
    "em": Look("#999999", "EM scale", "s", ":"),
    "lcw": Look("#000000", "LCW", "s"),
    "lcw_network": Look("#e69f00", "LCW, classes by a network", "P"),
    "gbdt": Look("#009e73", "boosted trees", "^"),
    "dnn": Look("#0072b2", "DNN", "o"),
    "cnn": Look("#d55e00", "CNN", "D"),
    "densenet": Look("#cc79a7", "DenseNet", "v"),
    "gbdt_shapes": Look("#44aa99", "trees, layer shapes too", "v", "--"),
    "mlp": Look("#117733", "MLP on moments", "h"),
    "points": Look("#aa3377", "network on cells", "p"),
    "points_all": Look("#661100", "its trainings, averaged", "p", "--"),
    "combined_hard": Look("#56b4e9", "combined, hard cut", "<"),
    "combined_soft": Look("#332288", "combined, weighted", ">"),
    "end_to_end": Look("#882255", "one network", "X"),
    "oracle": Look("#777777", "class known", "*", "--"),
}
SPARE_COLOURS = ("#aa4499", "#999933", "#6699cc", "#ddaa33", "#bb5566")
SPECIES_LABELS = {
    "pi0": r"$\pi^0$ clusters",
    "pic": r"$\pi^\pm$ clusters",
    "mixed": r"mixed $\pi^0$ and $\pi^\pm$ clusters",
}
QUANTITY_LABELS = {
    "median": r"median of $E_\mathrm{calib} / E_\mathrm{dep}$",
    "resolution": "IQR / (2 median)",
}
ENERGY_LABEL = r"$E_\mathrm{dep}$ [GeV]"

P = ParamSpec("P")
T = TypeVar("T")


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """Have a plot function draw in the shared style, and leave that of the caller alone."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        _load_backend()
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapped


@functools.cache
def _load_backend() -> None:
    """Have the backend set itself up outside of any context, whose end would undo it: a notebook
    would show its first figure only.
    """
    plt.close(plt.figure())


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """The look of each model; one that has none of its own gets a spare colour and its name,
    in the order given.
    """
    spare = [name for name in names if name not in MODEL_LOOKS]
    return {
        name: MODEL_LOOKS[name]
        if name in MODEL_LOOKS
        else Look(
            SPARE_COLOURS[spare.index(name) % len(SPARE_COLOURS)], name.replace("_", " "), "h"
        )
        for name in names
    }


def name_source(ax: Axes, *sources: str) -> None:
    """Write above the axes where the data come from."""
    ax.set_title(" / ".join(sources or (SIMULATION,)), loc="left", style="italic", fontsize=10.5)


def name_figure(figure: Figure, axes: NDArray[Any], sources: Sequence[str]) -> None:
    """One legend for all panels above them, and the source over the first."""
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(labels), 4), columnspacing=1.4
    )
    name_source(axes.flat[0], *sources)


def log_ticks(ax: Axes, *, decades: bool = False) -> None:
    """A logarithmic x axis whose labels are plain numbers (1, 2, 5, 10, ... or the decades
    only).
    """
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
