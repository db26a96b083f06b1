"""Collisions of Pythia 8 with two photons and jets: pairs of Higgs bosons and what looks like them.

Pythia has all but g g -> H H, which is added as a process with the matrix element of
`pfcalib.higgs.loops`, so that parton shower and hadrons are those of the others. What is not said
comes in the default tune, Monash 2013 (arXiv:1404.5630), without multiple interactions: the
experiment subtracts what they bring, and they would take five times the time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak

from pfcalib.errors import ConfigError
from pfcalib.higgs.loops import M_HIGGS, sigma_hat, squared_table
from pfcalib.simulation.pythia import require_pythia

SQRT_S = 13_000.0  # GeV
PHOTON_ETA = 2.37
VETO_SCALE, VETO_ETA = 18.0, 2.8  # GeV; of partons in the continuum, below what makes jets
_TO_PHOTONS = ("25:onMode = off", "25:onIfMatch = 22 22")
# one boson to photons and one to b quarks, half of the pairs; a hook takes the others out
_TO_BOTH = ("25:oneChannel = 1 0.5 100 22 22", "25:addChannel = 1 0.5 100 5 -5")


class Process(NamedTuple):
    """One class of collisions."""

    label: str  # in LaTeX
    settings: tuple[str, ...]  # of Pythia
    # fb, with the branching fractions of what the settings force; None: from data, see below
    cross_section: float | None


# Cross sections at 13 TeV for a Higgs boson of 125 GeV by the LHC Higgs working group,
# arXiv:1610.07922 (ttH, ZH with its part from gluons, and the branching fractions of H), and
# arXiv:1803.02463 (HH, NNLO with the mass of the top quark); Z -> b b from the Particle Data Group
H_TO_BB, H_TO_YY, Z_TO_BB = 0.5824, 2.270e-3, 0.1512
PROCESSES = {
    "hh": Process(r"$HH$", _TO_BOTH, 31.05 * 2.0 * H_TO_BB * H_TO_YY),
    "tth": Process(
        r"$t\bar{t}H$",
        ("HiggsSM:gg2Httbar = on", "HiggsSM:qqbar2Httbar = on", *_TO_PHOTONS),
        507.1 * H_TO_YY,
    ),
    "zh": Process(
        r"$ZH$",
        ("HiggsSM:ffbar2HZ = on", "23:onMode = off", "23:onIfAny = 5", *_TO_PHOTONS),
        883.9 * H_TO_YY * Z_TO_BB,
    ),
    "yy": Process(
        r"$\gamma\gamma$ + jets",
        (
            "PromptPhoton:ffbar2gammagamma = on",
            "PromptPhoton:gg2gammagamma = on",
            "PhaseSpace:mHatMin = 100.0",
            "PhaseSpace:mHatMax = 165.0",
            "PhaseSpace:pTHatMin = 25.0",
            # jets as hard as the photons, fewer of the harder ones: the scattering has none itself
            "SpaceShower:pTmaxMatch = 2",
            "SpaceShower:pTdampMatch = 1",
        ),
        None,
    ),
}
CLASSES = tuple(PROCESSES)


def generate(process: str, n_events: int, seed: int) -> ak.Array:
    """Events as ``Pythia.nextBatch`` gives them: records ``prt`` (all particles: ``id``,
    ``status``, ``p``) and ``info``.

    Parameters
    ----------
    process : str
        Of PROCESSES.
    n_events : int
    seed : int
        1 to 900,000,000.

    Raises
    ------
    ConfigError
        If the process is unknown, or Pythia is missing or does not start.
    """
    pythia, _kept = _start(process, seed)  # they live as long as Python knows them
    return pythia.nextBatch(n_events)


def lowest_order(seed: int, n_events: int = 2000) -> tuple[float, ak.Array]:
    """Cross section of g g -> H H at leading order in fb with Pythia's parton densities, and the
    hard scatterings (``sHat``, ``tHat``, ...) that it comes from.
    """
    pythia, _kept = _start("hh", seed, "PartonLevel:all = off", "HadronLevel:all = off")
    info = pythia.nextBatch(n_events).info
    return 1e12 * float(pythia.infoPython().sigmaGen()), info


def _start(process: str, seed: int, *more: str) -> tuple[Any, Any]:
    """A generator at the beginning of its stream, and what must be kept with it."""
    if process not in PROCESSES:
        raise ConfigError(f"process {process!r}: expected one of {', '.join(CLASSES)}")
    require_pythia()
    import pythia8mc

    class PairProduction(pythia8mc.Sigma2Process):
        """g g -> H H."""

        def initProc(self) -> None:
            squared_table()

        def sigmaKin(self) -> None:
            self.value = sigma_hat(self.sH, self.tH, self.alpS)

        def sigmaHat(self) -> float:
            return self.value

        def setIdColAcol(self) -> None:
            self.setId(21, 21, 25, 25)
            self.setColAcol(1, 2, 2, 1, 0, 0, 0, 0)

        def name(self) -> str:
            return "g g -> H H"

        def code(self) -> int:
            return 10001

        def inFlux(self) -> str:
            return "gg"

        def id3Mass(self) -> int:
            return 25

        def id4Mass(self) -> int:
            return 25

    class OnePhotonPair(pythia8mc.UserHooks):
        """Refuses pairs that decay to four photons or four b quarks."""

        def canVetoResonanceDecays(self) -> bool:
            return True

        def doVetoResonanceDecays(self, event: Any) -> bool:
            return sum(event[i].id() == 22 for i in range(event.size())) != 2

    class TwoPhotonsTwoPartons(pythia8mc.UserHooks):
        """Refuses events whose shower, when it comes below a scale, has not made two partons that
        may become jets, or whose photons lie outside, before the rest is made.
        """

        def canVetoPT(self) -> bool:
            return True

        def scaleVetoPT(self) -> float:
            return VETO_SCALE

        def doVetoPT(self, position: int, event: Any) -> bool:
            every = (event[i] for i in range(event.size()))
            hard = [p for p in every if p.isFinal() and p.pT() > VETO_SCALE]
            photons = sum(p.id() == 22 and abs(p.eta()) < PHOTON_ETA for p in hard)
            return photons < 2 or sum(p.isParton() and abs(p.eta()) < VETO_ETA for p in hard) < 2

    pythia, pair = pythia8mc.Pythia("", False), PairProduction()
    hook = {"hh": OnePhotonPair, "yy": TwoPhotonsTwoPartons}.get(process, pythia8mc.UserHooks)()
    settings = (
        *PROCESSES[process].settings,
        *more,
        f"Beams:eCM = {SQRT_S}",
        f"25:m0 = {M_HIGGS}",
        "PartonLevel:MPI = off",
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    )
    refused = [setting for setting in settings if not pythia.readString(setting)]
    if process == "hh":
        pythia.setSigmaPtr(pair)
    if not more:
        pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start with {process}; refused: {refused}")
    return pythia, (pair, hook)
