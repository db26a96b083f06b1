"""Variables of ATLAS xAOD containers in the tree ``CollectionTree`` of AOD, DAOD and PHYSLITE
files.

In these files a variable of a container is a branch ``<container>Aux.<variable>`` or
``<container>AuxDyn.<variable>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TREE = "CollectionTree"
GEV = 1e-3  # GeV in a MeV, the unit of xAOD
_VARIABLE = re.compile(r"(?:.*/)?(\w+?)Aux(?:Dyn)?\.(\w+)")


def variables(branches: Iterable[str]) -> dict[str, dict[str, str]]:
    """Branch of each variable of each container.

    >>> variables(["JetsAux./JetsAux.pt", "JetsAuxDyn.Width", "JetsAuxDyn.link/JetsAuxDyn.link.m_persKey", "Jets"])
    {'Jets': {'pt': 'JetsAux./JetsAux.pt', 'Width': 'JetsAuxDyn.Width'}}
    """
    found: dict[str, dict[str, str]] = {}
    for branch in branches:
        match = _VARIABLE.fullmatch(branch)
        if match:
            found.setdefault(match[1], {})[match[2]] = branch
    return found
