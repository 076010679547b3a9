"""A finished site, read as a browser without a network would: what is missing, and what would come from elsewhere."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {  # element -> attributes that name what a page loads by itself
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "audio": ("src",),
    "video": ("src", "poster"),
    "track": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "link": ("href",),
}
# what a <link> names and no browser loads
_NAMED_ONLY = {"canonical", "alternate", "index", "search", "next", "prev", "author", "license", "copyright"}
_IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@dataclass
class _Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that links can name."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    bare: int = 0  # pictures without alternative text

    def __post_init__(self):
        super().__init__()
        self._in_style = False

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self._in_style = tag == "style"
        self.loaded += in_css(given.get("style", ""))
        self.bare += tag == "img" and not given.get("alt")
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and _NAMED_ONLY >= set(given.get("rel", "").split()):
            self.links.append(given.get("href", ""))
            return
        for name in _LOADED.get(tag, ()):
            if name in given:
                parts = given[name].split(",") if name == "srcset" else [given[name]]
                self.loaded += [part.split()[0] for part in parts if part.strip()]

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        if self._in_style:
            self.loaded += in_css(data)


def in_css(text: str) -> list[str]:
    """All that a style sheet loads."""
    return [(first or second).strip() for first, second in _IN_CSS.findall(text)]


def problems(site: Path) -> list[str]:
    """All that is wrong with the pages and style sheets of a folder, one line each.

    A script, style, font or picture from another place; a link to a page, or a place in a page, that is not there; a
    picture without alternative text.
    """
    site = site.resolve()
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        wrong = [f"loads {target}" for target in page.loaded if _foreign(target)]
        inside = [target for target in (*page.links, *page.loaded) if _inside(target)]
        wrong += [f"links to {target}, which is not there" for target in inside if _dead(target, path, pages)]
        wrong += [f"has {page.bare} pictures without alternative text"] * bool(page.bare)
        found += [f"{path.relative_to(site)} {text}" for text in dict.fromkeys(wrong)]
    for path in sorted(site.rglob("*.css")):
        loaded = [target for target in in_css(path.read_text(encoding="utf-8")) if not target.startswith("#")]
        wrong = [f"loads {target}" for target in loaded if _foreign(target)]
        inside = [target for target in loaded if _inside(target)]
        wrong += [f"loads {target}, which is not there" for target in inside if _dead(target, path, {})]
        found += [f"{path.relative_to(site)} {text}" for text in dict.fromkeys(wrong)]
    return found


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _foreign(target: str) -> bool:
    parts = urlsplit(target)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def _inside(target: str) -> bool:
    parts = urlsplit(target)
    return not parts.scheme and not parts.netloc


def _dead(target: str, path: Path, pages: dict[Path, _Page]) -> bool:
    """Whether a link without a scheme, which stands in the file `path`, leads nowhere."""
    parts = urlsplit(target)
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not there.is_file():
        return True
    return bool(parts.fragment) and there in pages and unquote(parts.fragment) not in pages[there].places
