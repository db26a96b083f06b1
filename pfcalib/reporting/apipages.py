"""Pages of the API, made by pdoc from the docstrings of the package."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from pfcalib.cache import new_folder, write_text
from pfcalib.errors import ConfigError


def build_api(folder: Path, package: str = "pfcalib") -> None:
    """Write a page a module, and ``names.json``, which the search reads: name, page and first
    sentence of each module, function and class.

    Raises
    ------
    pfcalib.errors.ConfigError
        If pdoc is not installed.
    """
    try:
        import pdoc
    except ImportError as error:
        raise ConfigError("pages of the API need pdoc: pip install 'pfcalib[dev]'") from error
    pdoc.render.configure(
        docformat="numpy",
        search=False,
        show_source=False,
        template_directory=Path(__file__).parent / "templates" / "api",
    )
    with new_folder(folder) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that modules import for the type checker only
        pdoc.pdoc(package, output_directory=temporary)
        names = []
        for name in pdoc.extract.walk_specs([package]):
            names += _names_of(pdoc.doc.Module.from_name(name))
        for page in temporary.rglob("*.html"):
            text = page.read_text("utf-8")  # "Parameters" of a docstring is no heading of the page
            text = re.sub(r'<h6 id="[^"]*">(.*?)</h6>', r'<p class="part">\1</p>', text)
            page.write_text(text, "utf-8")
        (temporary / "index.html").unlink(missing_ok=True)  # only leads on
        write_text(temporary / "names.json", json.dumps(names, ensure_ascii=False))


def _names_of(module: Any) -> list[tuple[str, str, str]]:
    page = f"api/{module.fullname.replace('.', '/')}.html"
    found = [(module.fullname, page, _first_sentence(module.docstring))]
    for member in module.flattened_own_members:
        if member.kind in ("function", "class") and not member.name.startswith("_"):
            name, anchor = f"{module.fullname}.{member.qualname}", f"{page}#{member.qualname}"
            found.append((name, anchor, _first_sentence(member.docstring)))
    return found


def _first_sentence(docstring: str) -> str:
    """
    >>> _first_sentence("One thing. Another.")
    'One thing.'
    """
    return re.split(r"(?<=\.)\s", " ".join(docstring.split()), maxsplit=1)[0]
