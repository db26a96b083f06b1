"""Pages of the API, made by pdoc from the docstrings of the package."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from pfcalib.cache import new_folder, write_text
from pfcalib.errors import ConfigError

# of pdoc, or of templates/api where they are there
STYLES = ("syntax-highlighting.css", "theme.css", "layout.css", "content.css", "custom.css")


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
    pdoc.render.env.filters["format_signature"] = lambda signature, colon: (
        pdoc.render_helpers.format_signature(_shorten(signature), colon)
    )
    with new_folder(folder) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that modules import for the type checker only
        pdoc.pdoc(package, output_directory=temporary)
        names = []
        for name in pdoc.extract.walk_specs([package]):
            names += _names_of(pdoc.doc.Module.from_name(name))
        for page in temporary.rglob("*.html"):
            page.write_text(_mend(page.read_text("utf-8")), "utf-8")
        styles = [pdoc.render.env.get_template(name).render() for name in STYLES]
        write_text(temporary / "style.css", "\n".join(styles))
        (temporary / "index.html").unlink(missing_ok=True)  # only leads on
        write_text(temporary / "names.json", json.dumps(names, ensure_ascii=False))


class _Shown(str):
    """A text that stands in a signature as it is."""

    __repr__ = str.__str__


def _shorten(signature: inspect.Signature) -> inspect.Signature:
    """A signature with the types of numpy under their short names."""

    def short(annotation: Any) -> Any:
        if annotation is inspect.Parameter.empty:
            return annotation
        texts = map(inspect.formatannotation, (annotation, ArrayLike))
        text, array = (text.replace("typing.", "") for text in texts)
        for long in (array, array.removeprefix("Union[").removesuffix("]")):
            text = text.replace(long, "ArrayLike")
        text = re.sub(r"numpy\.ndarray\[.*?, numpy\.dtype\[([\w.]+)\]\]", r"NDArray[\1]", text)
        return _Shown(re.sub(r"\b(?:numpy|collections\.abc|pathlib)\.", "", text))

    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[each.replace(annotation=short(each.annotation)) for each in parameters],
        return_annotation=short(signature.return_annotation),
    )


def _mend(text: str) -> str:
    """A page without headings inside of docstrings, and without links to what it does not show."""
    text = re.sub(r'<h6 id="[^"]*">(.*?)</h6>', r'<p class="part">\1</p>', text)
    there = set(re.findall(r'id="([^"]+)"', text))
    return re.sub(
        r'<a href="#([^"]+)">(.*?)</a>',
        lambda link: link[0] if link[1] in there else link[2],
        text,
    )


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
