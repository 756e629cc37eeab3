"""A copy's address and version are kept in one place, and `stamp` writes them to every link and setup cell."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import colabcnn
from colabcnn import Error
from stamp_address import PLACEHOLDER, stamp

pytestmark = pytest.mark.versions

ROOT = Path(__file__).resolve().parents[2]
NAMES = [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
BADGE_IN_README = "[![Open In Colab](https://example.org/badge.svg)](https://example.org/old/notebooks/06_final.ipynb)"


@pytest.fixture
def checkout(tmp_path):
    """The files of a copy that contain the address, with one badge in the README."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", checkout / "notebooks", ignore=shutil.ignore_patterns(".*", "runs", "measured"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    with (checkout / "README.md").open("a") as readme:
        readme.write(f"\n{BADGE_IN_README}\n")
    return checkout


def contents(checkout):
    return {path.relative_to(checkout): path.read_bytes() for path in checkout.rglob("*") if path.is_file()}


def cells(checkout, name):
    notebook = json.loads((checkout / "notebooks" / name).read_text())
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}


def badges(text):
    """Return the targets of the badges in a text."""
    return re.findall(r"\[!\[Open In Colab\]\([^)]+\)\]\(([^)]+)\)", text)


def assert_stamped(checkout, home, tag, opened):
    """Check that every file names one home and tag; `opened` is the address from which Colab opens notebooks."""
    assert tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["urls"] == {"Homepage": home}
    setups = {cells(checkout, name)["setup"] for name in NAMES}
    (setup,) = setups
    assert f'HOME, TAG = "{home}", "{tag}"\n' in setup
    for name in NAMES:
        targets = badges("\n".join(cells(checkout, name).values()))
        assert targets == [f"{opened}/blob/{tag}/notebooks/{name}"]
    readme = badges((checkout / "README.md").read_text())
    assert f"{opened}/blob/{tag}/notebooks/06_final.ipynb" in readme
    assert all(target.startswith(f"{opened}/blob/{tag}/notebooks/") for target in readme)


@pytest.mark.parametrize(
    ("url", "home", "opened"),
    [
        (
            "https://github.com/you/colab-cnn.2",
            "https://github.com/you/colab-cnn.2",
            "https://colab.research.google.com/github/you/colab-cnn.2",
        ),
        ("https://github.com/you/it/", "https://github.com/you/it", "https://colab.research.google.com/github/you/it"),
        (
            "https://github.com/you/it.git",
            "https://github.com/you/it",
            "https://colab.research.google.com/github/you/it",
        ),
        (
            "https://github.com/you/it.git/",
            "https://github.com/you/it",
            "https://colab.research.google.com/github/you/it",
        ),
        ("https://git.example.org:8443/~you/it", *["https://git.example.org:8443/~you/it"] * 2),
        ("file:///home/you/it", *["file:///home/you/it"] * 2),
    ],
)
def test_home_is_written_to_every_place(checkout, url, home, opened):
    version = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
    stamped_home, tag, changed = stamp(url, checkout)
    assert (stamped_home, tag) == (home, f"v{version}")
    assert {path.relative_to(checkout) for path in changed} == set(contents(checkout))
    assert_stamped(checkout, home, tag, opened)


def test_only_address_and_tag_change(checkout):
    before = contents(checkout)
    stamp("https://github.com/you/it", checkout)
    for path, content in contents(checkout).items():
        for old, new in zip(before[path].decode().splitlines(), content.decode().splitlines(), strict=True):
            assert old == new or "github.com/you/it" in new or "/github/you/it/" in new


def test_stamping_again_changes_nothing(checkout):
    stamp("https://github.com/you/it", checkout)
    before = contents(checkout)
    assert stamp("https://github.com/you/it", checkout)[2] == []
    assert stamp(root=checkout) == ("https://github.com/you/it", f"v{colabcnn.__version__}", [])
    assert contents(checkout) == before


def test_committed_files_are_stamped(checkout):
    shutil.copy(ROOT / "README.md", checkout)
    assert stamp(root=checkout)[2] == []
    assert contents(checkout).keys() == {Path(name) for name in ("pyproject.toml", "README.md")} | {
        Path("notebooks") / name for name in NAMES
    }
    home = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    colab = home.replace("https://github.com/", "https://colab.research.google.com/github/")
    for name in NAMES:
        assert badges("\n".join(cells(ROOT, name).values())) == [
            f"{colab}/blob/v{colabcnn.__version__}/notebooks/{name}"
        ]


def test_placeholder_is_only_in_the_setup_cell_of_a_copy_with_a_home(checkout):
    stamp("https://github.com/you/it", checkout)
    for name in NAMES:
        for cell, source in cells(checkout, name).items():
            assert source.count(PLACEHOLDER) == (1 if cell == "setup" else 0), (name, cell)


def test_new_version_gives_a_new_tag_everywhere(checkout):
    stamp("https://github.com/you/it", checkout)
    text = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(re.sub(r'(?m)^version = ".*"$', 'version = "7.8.9"', text))
    home, tag, changed = stamp(root=checkout)
    assert (home, tag) == ("https://github.com/you/it", "v7.8.9")
    assert {path.name for path in changed} == {"README.md", *NAMES}
    assert_stamped(checkout, home, tag, "https://colab.research.google.com/github/you/it")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://github.com/you/it",
        "javascript:alert(1)",
        "git@github.com:you/it.git",
        "https://github.com",
        'https://github.com/you/"+it',
        "https://github.com/you/it'",
        "https://github.com/you/it\n",
        "https://github.com/you/it\nimport os",
        "https://github.com/you/it; rm -rf",
        "https://github.com/you/$(it)",
        "https://you:secret@github.com/you/it",
        "https://github.com/you/it?x=1#y",
        "https://github.com/you/{it}",
        "https://github.com/you/it\\",
    ],
)
def test_invalid_address_is_refused_and_changes_no_file(checkout, url):
    before = contents(checkout)
    with pytest.raises(Error, match=r"is not a home page; expected an address such as https://github.com/you/colabcnn"):
        stamp(url, checkout)
    assert contents(checkout) == before


def test_folder_without_a_checkout_is_refused(tmp_path):
    with pytest.raises(Error, match=r"holds no pyproject.toml"):
        stamp("https://github.com/you/it", tmp_path)


def test_version_is_that_of_the_project():
    assert colabcnn.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_command_stamps_its_own_checkout(checkout):
    for name in ("colabcnn", "tools"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))

    def stamp_address(*arguments):
        command = [sys.executable, "tools/stamp_address.py", *arguments]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True)

    first = stamp_address("https://github.com/you/it.git")
    assert first.returncode == 0, first.stderr
    assert f"{checkout / 'notebooks' / NAMES[0]}\n" in first.stdout
    tag = f"v{colabcnn.__version__}"
    last = f"The address is https://github.com/you/it; the notebooks install {tag} from there: push that tag.\n"
    assert first.stdout.endswith(last)
    assert_stamped(checkout, "https://github.com/you/it", tag, "https://colab.research.google.com/github/you/it")
    assert stamp_address().stdout == last
    before = contents(checkout)
    refused = stamp_address("http://github.com/you/it")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: 'http://github.com/you/it' is not a home")
    assert {path: content for path, content in contents(checkout).items() if path in before} == before
