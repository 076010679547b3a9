"""Links in texts of the repository, which lead to its files, turned into links of the site, which lead to its pages."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")  # text and target; a picture's too, after its "!"


@dataclass(frozen=True)
class Links:
    """Where links lead on the site.

    Args:
        root: the repository.
        pages: file or folder -> the source that becomes its page, relative to the folder of all sources.
    """

    root: Path
    pages: Mapping[Path, str]
    files: dict[str, Path] = field(default_factory=dict)
    """What pages show or offer: place, relative to the folder of all sources -> file."""

    def turned(self, text: str, here: Path, page: str) -> str:
        """A text in Markdown with links that work on the site.

        A link to what has a page leads there, one to any other file to a copy of it (`files`). A folder without a page
        is left as its text. What is nowhere stays as it is, and the building of the site refuses it.

        Args:
            here: the folder that the links start from.
            page: the source that the text will be part of.
        """

        def change(link: re.Match) -> str:
            text, (target, mark, place) = link[1], link[2].partition("#")
            if not target or ":" in target:
                return link[0]
            path = Path(os.path.normpath(here / target))
            if path in self.pages:
                return f"[{text}]({self._relative(self.pages[path], page)}{mark}{place})"
            if path.is_dir():
                return text
            return f"[{text}]({self.file(path, page)})" if path.is_file() else link[0]

        parts = re.split(r"(^```.*?^```)", text, flags=re.S | re.M)  # code is no text
        return "".join(part if part.startswith("```") else LINK.sub(change, part) for part in parts)

    def file(self, path: Path, page: str) -> str:
        """The target of a link from `page` to a copy of this file."""
        named = path.relative_to(self.root) if path.is_relative_to(self.root) else path.name
        place = f"files/{Path(named).as_posix()}"
        self.files[place] = path
        # MyST would take a copied notebook for a page
        scheme = "" if path.suffix in (".png", ".svg", ".jpg") else "path:"
        return scheme + self._relative(place, page)

    @staticmethod
    def _relative(place: str, page: str) -> str:
        return Path(os.path.relpath(place, Path(page).parent)).as_posix()
