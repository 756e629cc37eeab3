"""The links of all pages lead somewhere, and the two front pages show the same."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".github", "benchmarks", "colabcnn", "docs", "notebooks", "results", "tests", "tools")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
LINK = re.compile(r"(?<=\]\()[^()\s]+(?=\))")
BADGE = re.compile(r"\[!\[Open In Colab\]\([^)]+\)\]\([^)]+/(notebooks/[\w-]+\.ipynb)\)")
ENGLISH, JAPANESE = "README.md", "README.ja.md"


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(text):
    return re.findall(r"^```\w*\n.*?^```$", text, re.MULTILINE | re.DOTALL)


def without_code(text):
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """Return the anchors that GitHub gives to a page's headings."""
    found = []
    for heading in re.findall(r"^#+ +(.+?)\s*$", without_code(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{repeated}" if repeated else anchor)
    return found


def relative_links(text):
    return [link for link in LINK.findall(without_code(text)) if not re.match(r"[a-z][a-z+.-]*:", link)]


def broken_links(page):
    """Return the relative links of a page to a file or to a heading that does not exist."""
    broken, folder = [], ROOT / "notebooks" if page.parent.name == "notebook_texts" else page.parent
    for link in relative_links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    assert broken_links(page) == []


def test_link_to_a_missing_file_or_heading_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Two `words`\n## Same\n## Same\n## 結果、1\n[a](page.md) [b](#two-words) [c](page.md#same-1) [d](#結果1)\n"
        "[e](https://example.org/none#x) ![f](none.png) [g](#one-word) [h](page.md#same-2)\n"
        "```python\n[i](none.md)\n# Code\n```\n[j](#code)\n"
    )
    assert broken_links(page) == ["none.png", "#one-word", "page.md#same-2", "#code"]


def test_front_pages_lead_to_each_other_in_their_first_line():
    assert text_of(ENGLISH).splitlines()[0] == f"English | [日本語]({JAPANESE})"
    assert text_of(JAPANESE).splitlines()[0] == f"[English]({ENGLISH}) | 日本語"


def test_front_pages_have_the_same_commands_badges_and_generated_tables():
    english, japanese = text_of(ENGLISH), text_of(JAPANESE)
    assert code_blocks(japanese) == code_blocks(english) != []
    assert [match[0] for match in BADGE.finditer(japanese)] == [match[0] for match in BADGE.finditer(english)] != []
    generated = re.compile(r"^<!-- begin (.+) -->\n.*?^<!-- end \1 -->$", re.MULTILINE | re.DOTALL)
    assert [block[0] for block in generated.finditer(japanese)] == [block[0] for block in generated.finditer(english)]


def test_front_pages_have_the_same_order_and_links():
    english, japanese = without_code(text_of(ENGLISH)), without_code(text_of(JAPANESE))
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in (english, japanese)]
    assert levels[0] == levels[1]
    for number, (ours, theirs) in enumerate(
        zip(*(re.split(r"^## ", text, flags=re.MULTILINE) for text in (english, japanese)), strict=True)
    ):
        languages = {ENGLISH, JAPANESE} if number == 0 else set()
        assert {*relative_links(ours)} - languages == {*relative_links(theirs)} - languages


def test_front_page_has_a_badge_for_every_notebook():
    badges = [match[1] for match in BADGE.finditer(text_of(ENGLISH))]
    assert badges == [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_pages_stay_short():
    lengths = {page.name: len(page.read_text(encoding="utf-8").splitlines()) for page in (ROOT / "docs").glob("*.md")}
    assert {name: length for name, length in lengths.items() if length > 150} == {}
    assert max(len(text_of(page).splitlines()) for page in (ENGLISH, JAPANESE)) <= 130
