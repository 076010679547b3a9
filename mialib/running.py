"""What a notebook runs in, and what becomes of it where it lies afterwards.

The kernel is one of the Python that the command runs in: what is installed here is what a run needs, and a kernel of the
same name that belongs to somebody else, or to another environment, knows nothing of it.
"""

import os
import re
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
_FILES = (".ipynb", ".md", ".yaml", ".json", ".png")  # a link to one of these is meant to lead to a file


class Kernel(AsyncKernelManager):
    """A kernel of this Python, whatever the machine knows by the name that is asked for."""

    @property
    def kernel_spec(self) -> KernelSpec:
        if self._kernel_spec is None:
            self._kernel_spec = KernelSpec(**get_kernel_dict())
        return self._kernel_spec


def relink(notebook: NotebookNode, before: Path, now: Path) -> None:
    """Change a notebook's links to files, so that they work where the notebook lies.

    Args:
        before: the folder that the links start from.
        now: the folder in which the notebook lies. A link to a file that is not there, such as the stored results, which
            do not travel with an installation, becomes its text.
    """

    def changed(link: re.Match) -> str:
        text, (target, mark, place) = link[1], link[2].partition("#")
        if not target or ":" in target or os.path.isabs(target) or (now / target).exists():
            return link[0]
        if (before / target).exists():
            return f"[{text}]({Path(os.path.relpath(before / target, now)).as_posix()}{mark}{place})"
        return text if target.endswith(_FILES) else link[0]

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(changed, cell.source)
