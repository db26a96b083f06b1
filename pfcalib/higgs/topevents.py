"""Pairs of top quarks with one lepton, alone and with a Higgs boson that decays to b quarks: what
is left of collisions behind a detector like ATLAS and the usual preselection (arXiv:1712.08895,
arXiv:2111.06712).

Jets beside those of the decays come from Pythia's shower, b and c quarks from its gluons. Events
with more than the two b quarks of the decays are a sample of their own, in which gluons split so
more often, which the weight of an event takes back. An event does not draw whether enough of its
jets are tagged: it counts with the probability that at least N_TAGS are, and draws which, and how
clearly, among the ways in which they are. So each of many events with light jets stands for a few,
rather than few for many; what it costs is the spread of the weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.higgs.candidates import (
    ISOLATION,
    JET_ETA,
    JET_PT,
    JET_RESOLUTION,
    LEPTON_PT,
    MET_NOISE,
    _around,
    _distance,
    _eta,
    _flat,
    _hadrons,
    _holds,
    _mass,
    _Particles,
    _pt,
    _sum,
    _visible,
)
from pfcalib.higgs.loops import M_HIGGS
from pfcalib.higgs.processes import H_TO_BB, SQRT_S
from pfcalib.particleflow.jets import find_jets
from pfcalib.simulation.chunks import keep_chunks, read_columns
from pfcalib.simulation.collisions import MAX_SEED
from pfcalib.simulation.pythia import pythia_version, require_pythia

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

CLASSES = ("tth", "ttbb", "ttcc", "ttlight")
LABELS = (r"$t\bar{t}H$", r"$t\bar{t}$ + b", r"$t\bar{t}$ + c", r"$t\bar{t}$ + light")
# pb at 13 TeV: arXiv:1610.07922, and arXiv:1112.5675 with a top quark of 172.5 GeV; one W boson to
# an electron or a muon and one to quarks (Particle Data Group)
ONE_LEPTON = 2.0 * 2.0 * 0.1086 * 0.6741
SIGMA_TTH, SIGMA_TT = 0.5071 * H_TO_BB * ONE_LEPTON, 831.8 * ONE_LEPTON
_TT = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")
ENHANCEMENT = 5.0  # how much more often gluons of the final state split to b quarks
_SETTINGS = {
    "tth": (
        *("HiggsSM:gg2Httbar = on", "HiggsSM:qqbar2Httbar = on"),
        *("25:onMode = off", "25:onIfAny = 5", f"25:m0 = {M_HIGGS}"),
    ),
    "ttbb": (
        *_TT,
        "Enhancements:doEnhance = on",
        f"EnhancedSplittings:List = {{fsr:G2BB={ENHANCEMENT}}}",
    ),
    "tt": _TT,
}
CROSS_SECTIONS = {"tth": SIGMA_TTH, "ttbb": SIGMA_TT, "tt": SIGMA_TT}  # before any filter
LEAD_LEPTON_PT, LEPTON_RESOLUTION = 27.0, 0.02  # GeV; of its pT
MIN_JETS, MAX_JETS, N_TAGS = 6, 10, 4  # jets beyond MAX_JETS are left out
TAGGED = 2  # lowest level of a tag that counts: 77 %
# share of jets with a b hadron, a c hadron and others that reach each level: 85, 77, 70 and 60 % of
# b jets; those of the second as in arXiv:2211.16345, the others about so
TAG_EFFICIENCY = np.array(
    [
        [1.0, 0.85, 0.77, 0.70, 0.60],
        [1.0, 0.37, 0.18, 0.09, 0.033],
        [1.0, 0.028, 0.006, 0.0018, 0.0006],
    ]
)
TRUE_JET_PT = 15.0  # GeV, of a jet whose hadrons name the class
PROTON = 2212
NEAR = 0.4  # (eta, phi) of a quark and its jet


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopConfig:
    """Which collisions to make.

    Parameters
    ----------
    process : str
        "tth", "ttbb" with more than two b quarks after the shower, "tt" with two.
    n_events : int
        That have one central hard lepton, of which a part passes the preselection.
    seed : int
    chunk : int
        Events of one generator; the sample depends on it.
    """

    process: str
    n_events: int = 10_000
    seed: int = 1
    chunk: int = 5_000

    def __post_init__(self) -> None:
        if self.process not in _SETTINGS or min(self.n_events, self.chunk) < 1:
            raise ConfigError(
                f"TopConfig: process = {self.process!r}, n_events = {self.n_events}, chunk = "
                f"{self.chunk}: expected one of {', '.join(_SETTINGS)}, and above 0"
            )


class TopEvents(NamedTuple):
    """Events that pass the preselection, jets by falling pT with zeros behind the last."""

    jets: NDArray[np.float32]  # (n, MAX_JETS, 4) pT [GeV], eta, phi, mass [GeV]
    tag: NDArray[np.int8]  # (n, MAX_JETS) levels reached, 0 to 4
    lepton: NDArray[np.float32]  # (n, 3) pT [GeV], eta, phi
    missing: NDArray[np.float32]  # (n, 2) pT [GeV], phi
    label: NDArray[np.int64]  # (n,) place in CLASSES
    weight: FloatArray  # (n,) that of the generator times the probability of its tags
    tried: IntArray  # (n_chunks,) collisions from which the process was filtered

    @property
    def n_events(self) -> int:
        """Events that passed."""
        return len(self.label)


def join_events(parts: Sequence[TopEvents]) -> TopEvents:
    """Several samples, one after the other."""
    return TopEvents(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def cached_top_events(config: TopConfig, *, n_processes: int = 1) -> Path:
    """File of the events of a process (.npz of the arrays of TopEvents), made where it is not
    there; chunks that an interrupted call has left are taken.
    """
    key = cache_key("topevents", config=config, pythia=pythia_version())
    path = cache_folder() / "topevents" / f"{config.process}-{key}.npz"
    return keep_chunks(
        path, functools.partial(simulate_chunk, config), -(-config.n_events // config.chunk),
        join=lambda parts: join_events([TopEvents(**part) for part in parts]),
        n_processes=n_processes,
    )  # fmt: skip


def read_top_events(path: Path) -> TopEvents:
    """Events of a file of `cached_top_events`."""
    return TopEvents(**read_columns(path))


def simulate_chunk(config: TopConfig, number: int) -> TopEvents:
    """Events of one generator, whatever was made before."""
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    rng = np.random.default_rng((config.seed, tuple(_SETTINGS).index(config.process), number))
    seed = int(rng.integers(1, MAX_SEED, endpoint=True))
    # the lepton is positive in every other chunk
    events, tried = generate_tops(config.process, n_events, seed, positive=number % 2 == 0)
    return select_tops(events, rng, higgs=config.process == "tth", tried=tried)


def generate_tops(
    process: str, n_events: int, seed: int, *, positive: bool = True
) -> tuple[ak.Array, int]:
    """Events as ``Pythia.nextBatch`` gives them, with the weights in ``info.weights``, and from how
    many collisions they were filtered, whose mean weight is 1.

    Parameters
    ----------
    process : str
        See `TopConfig`.
    n_events : int
    seed : int
        1 to 900,000,000.
    positive : bool
        Charge of the lepton.

    Raises
    ------
    ConfigError
        If the process is unknown, or Pythia is missing or does not start.
    """
    require_pythia()
    import pythia8mc

    if process not in _SETTINGS:
        raise ConfigError(f"process {process!r}: expected one of {', '.join(_SETTINGS)}")

    class OneLepton(pythia8mc.UserHooks):
        """Refuses events without a central hard lepton, or of the other sample, before hadrons are
        made.
        """

        tried = 0

        def canVetoPartonLevel(self) -> bool:
            return True

        def doVetoPartonLevel(self, event: Any) -> bool:
            self.tried += 1
            final = [p for i in range(event.size()) if (p := event[i]).isFinal()]
            kinds = [p.idAbs() for p in final]
            more = kinds.count(5) > 2
            if process != "tth" and more != (process == "ttbb"):
                return True
            leptons = (p for p, kind in zip(final, kinds, strict=True) if kind in (11, 13))
            return not any(p.pT() > LEAD_LEPTON_PT and abs(p.eta()) < JET_ETA for p in leptons)

    lepton, quarks = ("Pos", "Neg") if positive else ("Neg", "Pos")
    settings = [
        *_SETTINGS[process],
        *("24:onMode = off", f"24:on{lepton}IfAny = 11 13", f"24:on{quarks}IfAny = 1 2 3 4 5"),
        *(f"Beams:eCM = {SQRT_S}", "PartonLevel:MPI = off", "Print:quiet = on"),
        *("Random:setSeed = on", f"Random:seed = {seed}"),
    ]
    pythia, hook = pythia8mc.Pythia("", False), OneLepton()
    refused = [setting for setting in settings if not pythia.readString(setting)]
    pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start with {process}; refused: {refused}")
    return pythia.nextBatch(n_events), hook.tried


def select_tops(
    events: ak.Array, rng: np.random.Generator, *, higgs: bool, tried: int
) -> TopEvents:
    """Events that pass the preselection: one isolated electron or muon, MIN_JETS jets, N_TAGS of
    them tagged.

    Parameters
    ----------
    events : awkward.Array
        Of `generate_tops`.
    rng : numpy.random.Generator
        Of the detector.
    higgs : bool
        Whether all events hold a Higgs boson, and so belong to the first class.
    tried : int
        Collisions from which the events were filtered.
    """
    found = _visible(events)
    lepton, row, kept = _one_lepton(found)
    rest = found.take(np.isin(found.event, kept))
    others = np.flatnonzero(np.isin(found.event, kept)) != row[np.searchsorted(kept, rest.event)]
    place = np.searchsorted(kept, rest.event)
    true, jets, shift = _two_jets(rest.momentum[others], place[others], len(kept), rng)
    scale = rng.normal(1.0, LEPTON_RESOLUTION, len(kept))[:, None]
    missing = -_sum(place, rest.momentum[:, :2], len(kept)) - shift + lepton[:, :2] * (1.0 - scale)
    missing += rng.normal(0.0, MET_NOISE, missing.shape)
    hadrons = _hadrons(events[kept])
    quarks = {name: _quarks(events[kept], pdg_id) for name, pdg_id in (("b", 5), ("c", 4))}
    enough = np.count_nonzero(jets[..., 3], axis=1) >= MIN_JETS
    holds_b, holds_c = (_holds(jets, hadrons[name]) for name in ("b", "c"))
    flavour = np.select([holds_b, holds_c], [0, 1], 2)
    tag, probability = draw_tags(flavour, jets[..., 3] > 0.0, rng)
    more_b, more_c = (_any_more(true, hadrons[name], *quarks[name]) for name in ("b", "c"))
    label = np.zeros_like(kept) if higgs else np.select([more_b, more_c], [1, 2], 3)
    weight = ak.to_numpy(events.info.weights[:, 0])[kept] * probability
    good = enough & (weight > 0.0)
    with np.errstate(invalid="ignore"):  # zeros lie nowhere
        jets = np.stack([_pt(jets), _eta(jets), _phi(jets), _mass(jets)], -1) * (
            jets[..., 3:] > 0.0
        )
    lepton *= scale
    return TopEvents(
        np.nan_to_num(jets[good]).astype(np.float32),
        tag[good].astype(np.int8),
        np.stack([_pt(lepton), _eta(lepton), _phi(lepton)], -1)[good].astype(np.float32),
        np.stack([_pt(missing), _phi(missing)], axis=-1)[good].astype(np.float32),
        label[good],
        weight[good],
        np.array([tried]),
    )


def _one_lepton(found: _Particles) -> tuple[FloatArray, IntArray, IntArray]:
    """Momentum, row and event of the lepton of events with exactly one."""
    seen = np.isin(found.pdg_id, (11, 13)) & (_pt(found.momentum) > LEPTON_PT)
    rows = np.flatnonzero(seen & (np.abs(_eta(found.momentum)) < JET_ETA))
    rows = rows[_around(found, rows) < ISOLATION * _pt(found.momentum[rows])]
    event, first, n = np.unique(found.event[rows], return_index=True, return_counts=True)
    rows, event = rows[first[n == 1]], event[n == 1]
    hard = _pt(found.momentum[rows]) > LEAD_LEPTON_PT
    return found.momentum[rows[hard]], rows[hard], event[hard]


def _two_jets(
    momentum: FloatArray, place: IntArray, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Central jets by falling pT, true ones (n, MAX_JETS, 4) and smeared ones above JET_PT, zeros
    behind the last, and what smearing added to px and py of all, (n, 2).
    """
    offsets = np.searchsorted(place, np.arange(n + 1))
    px, py, pz, e = momentum.T
    found = find_jets(px, py, pz, e, offsets, radius=0.4, pt_min=TRUE_JET_PT)
    true = np.stack(
        [
            found.pt * np.cos(found.phi),
            found.pt * np.sin(found.phi),
            found.pt * np.sinh(found.eta),
            np.hypot(found.pt * np.cosh(found.eta), found.mass),
        ],
        axis=-1,
    )
    a, b, c = JET_RESOLUTION
    sigma = np.sqrt((a / found.pt) ** 2 + b**2 / found.pt + c**2)
    smeared = true * np.maximum(rng.normal(1.0, sigma), 0.1)[:, None]
    shift = _sum(found.event, (smeared - true)[:, :2], n)
    central = np.abs(found.eta) < JET_ETA
    hard = central & (_pt(smeared) > JET_PT)
    return (
        _by_event(true[central], found.event[central], n),
        _by_event(smeared[hard], found.event[hard], n),
        shift,
    )


def _by_event(momentum: FloatArray, event: IntArray, n: int) -> FloatArray:
    """The MAX_JETS of the largest pT of each event, (n, MAX_JETS, 4)."""
    order = np.lexsort((-_pt(momentum), event))
    rank = np.arange(len(event)) - np.searchsorted(event, event)
    some = rank < MAX_JETS
    jets = np.zeros((n, MAX_JETS, 4))
    jets[event[some], rank[some]] = momentum[order][some]
    return jets


def draw_tags(
    flavour: IntArray, there: Mask, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Levels of tags, drawn among the ways in which at least N_TAGS jets reach TAGGED, and the
    probability that so many do.

    Parameters
    ----------
    flavour : ndarray of int, shape (n, n_jets)
        Row of TAG_EFFICIENCY.
    there : ndarray of bool, shape (n, n_jets)
        Whether there is a jet.
    rng : numpy.random.Generator

    Returns
    -------
    tuple of ndarray
        Levels (n, n_jets), 0 where there is none, and the probability (n,).
    """
    n, n_jets = flavour.shape
    share = there * TAG_EFFICIENCY[flavour, TAGGED]
    # at_least[i][:, m]: probability that at least m of the jets from i on are tagged
    at_least = [np.zeros((n, N_TAGS + 1)) for _ in range(n_jets + 1)]
    at_least[n_jets][:, 0] = 1.0
    for i in range(n_jets)[::-1]:
        after, p = at_least[i + 1], share[:, i : i + 1]
        at_least[i][:, 0] = 1.0
        at_least[i][:, 1:] = p * after[:, :-1] + (1.0 - p) * after[:, 1:]
    missing = np.full(n, N_TAGS)
    tag = np.zeros((n, n_jets), dtype=np.int64)
    row = np.arange(n)
    for i in range(n_jets):
        if_tagged = share[:, i] * at_least[i + 1][row, np.maximum(missing - 1, 0)]
        all_ways = np.maximum(at_least[i][row, missing], 1e-300)
        tagged = rng.uniform(size=n) * all_ways < if_tagged
        missing -= tagged & (missing > 0)
        reached = TAG_EFFICIENCY[flavour[:, i]]
        low = np.where(tagged, 0.0, reached[:, TAGGED])
        high = np.where(tagged, reached[:, TAGGED], 1.0)
        level = (rng.uniform(low, high)[:, None] < reached[:, 1:]).sum(axis=1)
        tag[:, i] = level * there[:, i]
    return tag, at_least[0][:, N_TAGS]


def _quarks(events: ak.Array, quark: int) -> tuple[_Particles, Mask]:
    """Last copies of the quarks of a flavour, and whether they come neither from a top quark, a W
    or a Higgs boson nor from the decay of a hadron.
    """
    every = events.prt
    n = ak.to_numpy(ak.num(every.id))
    first = np.repeat(np.cumsum(n) - n, n)
    pdg_id = np.abs(ak.to_numpy(ak.flatten(every.id)))
    mother, *daughters = (
        ak.to_numpy(ak.flatten(every[name])) + first
        for name in ("mother1", "daughter1", "daughter2")
    )
    is_quark = pdg_id == quark
    goes_on = is_quark[daughters[0]] | is_quark[daughters[1]]
    rows = np.flatnonzero(is_quark & ~goes_on)
    origin = mother[rows]
    while (again := is_quark[origin]).any():
        origin = np.where(again, mother[origin], origin)
    made = pdg_id[origin]
    beside = ~np.isin(made, (6, 24, 25)) & ((made < 100) | (made == PROTON))
    flat = _flat(every)
    return _Particles(flat.event[rows], flat.pdg_id[rows], flat.momentum[rows]), beside


def _any_more(jets: FloatArray, hadrons: _Particles, quarks: _Particles, beside: Mask) -> Mask:
    """Whether an event has a jet with a hadron whose nearest quark is beside the decays, (n,)."""
    away = {}
    for kind, rows in ((True, beside), (False, ~beside)):
        some = quarks.take(rows)
        away[kind] = np.full(jets.shape[:2], np.inf)
        with np.errstate(invalid="ignore"):
            distance = _distance(jets[some.event], some.momentum[:, None])
        np.fmin.at(away[kind], some.event, distance)
    more = (away[True] < NEAR) & (away[True] < away[False])
    return np.asarray(np.any(_holds(jets, hadrons) & more, axis=1))


def _phi(momentum: FloatArray) -> FloatArray:
    return np.arctan2(momentum[..., 1], momentum[..., 0])
