"""The documentation's links lead somewhere, and its lists of files are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^][]*]\(([^()\s]+)\)")
BLOCK = re.compile(r"^```.*?^```", re.M | re.S)
FOLDERS = "", "*/", "layers/*/*/", "lglstm/*/", "models/*/"
PAGES = [
    str(page.relative_to(REPOSITORY))
    for folder in FOLDERS
    for page in sorted(REPOSITORY.glob(f"{folder}*.md"))
]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", BLOCK.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    dead = []
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    assert dead_links(REPOSITORY / page) == []


@pytest.mark.parametrize("folder", ["data_prep", "lglstm/evaluation"])
def test_a_folder_s_page_names_its_files(folder: str) -> None:
    table = (REPOSITORY / folder / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+\.py)`", table))
    assert named == {file.name for file in (REPOSITORY / folder).glob("[!_]*.py")}


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The `first`: one, two\n"
        "[a](#the-first-one-two) [b](#second) [c](page.md#the-first-one-two)\n"
        "[d](page.md#x) [e](other.md) [f](https://example.org/#x)\n"
        "```\n# second\n[g](nowhere)\n```\n"
    )
    assert dead_links(page) == ["#second", "page.md#x", "other.md"]
