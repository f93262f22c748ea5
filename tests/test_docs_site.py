"""The built documentation works on a closed network: no page loads anything from another host."""

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SESSION = (ROOT / "docs" / "sessions" / "demo.txt").read_text()
LOADS = {("link", "href"), *((tag, "src") for tag in ("audio", "embed", "iframe", "img", "input", "script", "source", "track", "video")),
         ("object", "data"), ("image", "href"), ("use", "href"), ("video", "poster")}  # fmt: skip
"""(tag, attribute): what a browser loads by itself. A link (``a``) is loaded only when someone follows it."""
NOT_LOADED = {"canonical", "alternate", "next", "prev", "author", "license"}
"""What a ``link`` may be without being loaded."""
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)")


class Page(HTMLParser):
    """Collects the addresses that a page loads, and the classes of its elements."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.classes, self._tag = [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag, given = tag, {name: value or "" for name, value in attrs}
        self.classes.update(given.get("class", "").split())
        self.loaded += IN_STYLES.findall(given.get("style", ""))
        self.loaded += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and set(given.get("rel", "").split()) <= NOT_LOADED:
            return
        self.loaded += [value for name, value in given.items() if (tag, name) in LOADS]

    def handle_data(self, data):
        if self._tag == "style":
            self.loaded += IN_STYLES.findall(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site): Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(found) > 40
    return found


def elsewhere(addresses):
    return [address for address in addresses if ELSEWHERE.match(address)]


def test_no_page_loads_anything_from_another_host(pages):
    for name, page in pages.items():
        assert page.loaded, name
        assert elsewhere(page.loaded) == [], name


def test_no_style_or_diagram_loads_anything_from_another_host(site):
    styles, diagrams = list(site.rglob("*.css")), list(site.rglob("diagrams/*.svg"))
    assert styles
    assert diagrams
    for path in styles:
        assert elsewhere(IN_STYLES.findall(path.read_text())) == [], path
    for path in diagrams:
        assert elsewhere(Page(path.read_text()).loaded) == [], path


def test_no_page_makes_the_theme_load_a_script(site, pages):
    """The theme's own script names other hosts. It calls them only for an element that no page has,
    and in browsers of before 2020 (ResizeObserver)."""
    scripts = "".join(path.read_text() for path in site.rglob("*.js"))
    named = set(re.findall(r"""["'`](https?://[^"'`$]+)""", scripts))
    known = (
        "https://unpkg.com/mermaid@",
        "https://unpkg.com/resize-observer-polyfill",
        "https://api.github.com/",
        "http://www.w3.org/",
    )
    assert [address for address in named if not address.startswith(known)] == [], "what makes the theme load it?"
    for name, page in pages.items():
        assert not page.classes & {"mermaid", "md-source"}, name


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://unpkg.com/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<link rel="preconnect" href="https://fonts.example" crossorigin>',
        '<img src="https://host.example/x.png">',
        '<img srcset="x.png 1x, https://host.example/x.png 2x">',
        "<style>@import 'https://host.example/x.css';</style>",
        '<p style="background: url(https://host.example/x.png)">',
    ],
)
def test_an_address_elsewhere_is_found(text):
    assert elsewhere(Page(text).loaded)


def test_a_link_that_is_followed_is_not_loaded():
    assert (
        Page('<a href="https://spark.apache.org/">Spark</a><link rel="canonical" href="https://x.example/">').loaded
        == []
    )


def test_the_home_page_and_the_readme_show_a_real_session(site):
    assert SESSION in (ROOT / "README.md").read_text()
    home = html.unescape(re.sub(r"<[^>]+>", "", (site / "index.html").read_text()))
    for line in SESSION.splitlines():
        assert line.lstrip("$ ") in home
