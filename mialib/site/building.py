"""The site, built by Sphinx and MyST-NB from the executed notebooks as they stand: nothing is executed."""

import io
import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mialib.site import checking, pages

_MATHJAX = "tex-svg-full.js"  # one file that holds all glyphs as drawings, and loads no other
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_MARK = ".buildinfo"  # Sphinx leaves it in what it built
_SETTINGS = {
    "project": "mialib",
    "extensions": ["myst_nb", "sphinx.ext.mathjax"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "myst_enable_extensions": ["dollarmath", "colon_fence"],
    "myst_heading_anchors": 4,
    "exclude_patterns": ["files"],
    "mathjax_path": f"mathjax/{_MATHJAX}",
    "html_theme": "furo",
    "html_title": "mialib",
    "html_css_files": ["site.css"],
    "html_copy_source": False,  # pages offer the notebooks themselves
    "html_show_search_summary": False,  # it fetches pages, which a browser refuses for files
    "html_show_sphinx": False,
    "html_use_index": False,
}


def build(results: Path, folder: Path) -> list[str]:
    """Build the site of a folder of results; all that is wrong with it, one line each.

    Args:
        results: as outputs/ is, with `<notebook>/<run>/executed.ipynb`.
        folder: gets the site. It is made, or replaced where it holds an earlier one. Its page is index.html; it can be
            opened as a file, and works without a network.

    Raises:
        FileNotFoundError: there are no results.
        FileExistsError: `folder` holds something else.
        ModuleNotFoundError: Sphinx, or what it needs here, is not installed.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise FileExistsError(f"{folder} holds something else than a site; name a folder of its own")
    try:
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace

        mathjax = distribution("sphinx-mathjax-offline").locate_file(
            f"sphinx-mathjax-offline/static/mathjax/{_MATHJAX}"
        )
    except (ImportError, PackageNotFoundError) as error:
        raise ModuleNotFoundError(f"the site needs {error.name}; pip install 'mialib[site]'") from error
    with tempfile.TemporaryDirectory() as place:
        sources, static, made, extra = (Path(place) / name for name in ("sources", "static", "made", "extra"))
        (static / "mathjax").mkdir(parents=True)
        extra.mkdir()
        shutil.copyfile(str(mathjax), static / "mathjax" / _MATHJAX)
        shutil.copyfile(Path(__file__).with_name("site.css"), static / "site.css")
        pages.write(results, sources, extra)
        folders = {"html_static_path": [str(static)], "html_extra_path": [str(extra)]}
        told = io.StringIO()
        trees = Path(place) / "trees"
        with docutils_namespace():  # what a site adds to docutils ends with it
            Sphinx(
                sources,
                None,
                made,
                trees,
                "html",
                confoverrides=_SETTINGS | folders,
                status=None,
                warning=told,
            ).build()
        said = _COLOURS.sub("", told.getvalue()).replace(f"{sources}/", "")
        wrong = said.splitlines() + checking.problems(made)
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folder)
    return wrong
