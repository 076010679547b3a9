"""The site of the stored results, built once and read as a reader's browser would; small sites where one must go wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mialib import REPO_ROOT, cli, site
from mialib.site import building, pages

pytest.importorskip("myst_nb", reason="needs the extra `site`")
pytest.importorskip("furo", reason="needs the extra `site`")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
WIDTHS = {"desk": 1280, "phone": 390}
BETWEEN = (700, 1020, 1366, 1600)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the whole site, by the command."""
    folder = tmp_path_factory.mktemp("site") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIALIB_OUTPUTS", str(REPO_ROOT / "outputs"))
        assert cli.main(["site", str(folder)]) == 0  # no warning, no dead link, nothing from elsewhere
    return folder


@pytest.fixture(scope="module")
def texts(built):
    """Page -> its HTML."""
    return {str(path.relative_to(built)): path.read_text() for path in built.rglob("*.html")}


def test_each_executed_run_has_a_page(texts):
    runs = {
        f"{path.parts[-3]}/{path.parts[-2]}.html"
        for path in (REPO_ROOT / "outputs").glob("*/*/executed.ipynb")
    }
    assert runs | {"index.html", "runs.html", "results.html", "search.html"} == set(texts)


def test_each_page_has_contents_search_and_a_switch_for_dark_mode(texts):
    for name, text in texts.items():
        for part in ('class="sidebar-tree"', 'role="search"', 'class="theme-toggle"'):
            assert part in text, name


def test_formulas_are_set_by_a_file_of_the_site(built, texts):
    with_formulas = [name for name, text in texts.items() if 'class="math' in text]
    assert len(with_formulas) > 5
    for name in with_formulas:
        source = re.search(r'src="([^"]*mathjax/[^"?]*)', texts[name])[1]
        assert (built / name).parent.joinpath(source).is_file()


def test_each_run_offers_its_notebook(texts):
    for run in pages.found(REPO_ROOT / "outputs"):
        offered = re.findall(
            r'href="[^"]*_downloads/\w+/([^"]+)"', texts[run.page.replace(".ipynb", ".html")]
        )
        assert {"executed.ipynb", f"{run.paper}.ipynb"} <= set(offered)


def test_nothing_private_is_told(texts):
    assert [
        name for name, text in texts.items() if str(REPO_ROOT) in text or str(Path.home()) + "/" in text
    ] == []


def test_git_ignores_the_site():
    if not (REPO_ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "check-ignore", "-q", "outputs/.site/index.html"]
    assert subprocess.run(command, cwd=REPO_ROOT).returncode == 0


# In a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    with playwright.sync_playwright() as running:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not installed and not Path(running.chromium.executable_path).is_file():
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
        started = running.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        yield started
        started.close()


# what is wrong with a page as it is shown: pictures that cannot be, formulas with errors, text that is cut off
LOOK = """async () => {
  const wrong = [];
  if (window.MathJax) await MathJax.startup.promise;
  for (const picture of document.images) {
    picture.loading = 'eager';
    await picture.decode().catch(() => wrong.push('broken picture ' + picture.src));
  }
  for (const formula of document.querySelectorAll('article .math'))
    if (!formula.querySelector('mjx-container')) wrong.push('formula not set: ' + formula.textContent);
  for (const error of document.querySelectorAll('[data-mjx-error], mjx-merror'))
    wrong.push('formula with an error: ' + error.textContent);
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) wrong.push(`the page is ${wide} wide`);
  const scrolls = (element) => {
    for (let around = element; around; around = around.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(around).overflowX)) return true;
    return false;
  };
  for (const element of document.querySelectorAll('article *')) {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    if (box.width <= 1 || element.closest('mjx-assistive-mml') || element.closest('svg')) continue;
    const what = element.tagName + ' ' + element.textContent.trim().slice(0, 50);
    if (box.right > innerWidth + 1 && !scrolls(element)) wrong.push('beyond the edge: ' + what);
    if (['hidden', 'clip'].includes(style.overflowX) && element.scrollWidth > element.clientWidth + 1)
      wrong.push('cut off: ' + what);
  }
  return wrong;
}"""


@pytest.fixture
def opened(browser):
    """Opens a page as a file, gives it and what goes wrong meanwhile."""
    contexts = []

    def open_page(path, width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"cannot load {request.url}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(f"asks for {r.url}"),
        )
        page.goto(path.as_uri())
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pages_show_everything_in_a_browser(built, texts, opened, width):
    wrong = {}
    for name in texts:
        page, found = opened(built / name, width)
        if found := found + page.evaluate(LOOK):
            wrong[name] = found
        page.close()
    assert wrong == {}


@pytest.mark.parametrize("width", BETWEEN)
def test_no_width_between_makes_the_page_scroll(built, opened, width):
    page, _ = opened(built / "yuan2022_pruning" / "location.html", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<img src="lost.png" alt="a">', "broken picture"),
        ("<p style='width: 2000px'>wide</p>", "beyond the edge: P wide"),
        (
            "<p style='width: 90px; overflow: hidden; white-space: nowrap'>long, longer, longest</p>",
            "cut off: P long",
        ),
        ("<script src='https://x.invalid/a.js'></script>", "asks for https://x.invalid/a.js"),
        ("<script>nothing()</script>", "nothing is not defined"),
        ('<span class="math">x</span>', "formula not set: x"),
    ],
)
def test_the_browser_finds_what_is_wrong(tmp_path, opened, body, said):
    (tmp_path / "page.html").write_text(f"<!doctype html><article>{body}</article>")
    page, wrong = opened(tmp_path / "page.html", 390)
    assert any(said in line for line in wrong + page.evaluate(LOOK))


def test_dark_mode_is_dark_and_search_finds_pages(built, opened):
    shades = []
    for scheme in ("light", "dark"):
        page, wrong = opened(built / "index.html", 390, scheme)
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades.append(sum(map(int, re.findall(r"\d+", shade)[:3])))
    assert shades[0] > 600 and shades[1] < 150
    page.goto((built / "search.html").as_uri() + "?q=purifier")
    page.wait_for_selector("ul.search li a")
    assert page.locator("ul.search li a", has_text="purifier").count() > 3
    assert wrong == []


# Small sites


def test_a_dead_link_is_told_with_its_page(repository):
    (repository / "README.md").write_text("# A\n\n[lost](notebooks/lost.ipynb)\n")
    wrong = building.build(repository / "outputs", repository / "site")
    assert wrong[0].startswith("index.md:3: WARNING") and "notebooks/lost.ipynb" in wrong[0]
    assert wrong[1:] == ["index.html links to #notebooks/lost.ipynb, which is not there"]
    assert (repository / "site" / "index.html").is_file()


def test_a_site_replaces_an_earlier_one_and_nothing_else(repository):
    folder = repository / "site"
    assert site.build(repository / "outputs", folder) == []
    (folder / "left.html").touch()
    shutil.rmtree(repository / "outputs" / "a" / "other")
    assert "outputs/a/other" in (repository / "README.md").read_text()
    site.build(repository / "outputs", folder)
    assert not (folder / "left.html").exists() and not (folder / "a" / "other.html").exists()
    with pytest.raises(FileExistsError, match="holds something else"):
        site.build(repository / "outputs", repository / "params")
    assert (repository / "params" / "a" / "first.yaml").is_file()


def test_what_is_not_installed_is_named(repository, monkeypatch):
    def absent(name):
        raise building.PackageNotFoundError(name)

    monkeypatch.setattr(building, "distribution", absent)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs sphinx-mathjax-offline; pip install 'mialib\[site\]'"
    ):
        site.build(repository / "outputs", repository / "site")


def test_the_command_says_what_is_wrong(repository, monkeypatch, capsys):
    monkeypatch.setenv("MIALIB_OUTPUTS", str(repository / "nothing"))
    assert cli.main(["site"]) == 2
    assert "no executed notebook in" in capsys.readouterr().err
    (repository / "README.md").write_text("# A\n\n[lost](notebooks/lost.ipynb)\n")
    monkeypatch.setenv("MIALIB_OUTPUTS", str(repository / "outputs"))
    assert cli.main(["site"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("mialib: index.md:3: WARNING")
    assert said.out.strip() == str(repository / "outputs" / ".site" / "index.html")
