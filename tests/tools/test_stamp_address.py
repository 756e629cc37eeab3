"""A copy's address and commit are kept in one place, and `stamp` writes them to every badge and setup cell."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from colabcnn import Error
from stamp_address import PLACEHOLDER, READMES, read_address, stamp
from support.repository import git

ROOT = Path(__file__).resolve().parents[2]
NAMES = [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture
def checkout(tmp_path):
    """The files of a copy that contain the address, in a repository of one commit."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", checkout / "notebooks", ignore=shutil.ignore_patterns(".*", "runs", "measured"))
    for name in ("pyproject.toml", *READMES):
        shutil.copy(ROOT / name, checkout)
    git(checkout, "init", "-q")
    commit(checkout)
    return checkout


def commit(checkout):
    git(checkout, "add", "--all")
    git(checkout, "commit", "-q", "-m", "a commit")
    return git(checkout, "rev-parse", "HEAD")


def contents(checkout):
    files = (path for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(checkout): path.read_bytes() for path in files}


def cells(checkout, name):
    notebook = json.loads((checkout / "notebooks" / name).read_text())
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}


def badges(text):
    """Return the targets of the badges in a text."""
    return re.findall(r"\[!\[Open In Colab\]\([^)]+\)\]\(([^)]+)\)", text)


def assert_stamped(checkout, home, installed, opened):
    """Check that every file names one home and commit; `opened` is the address from which Colab opens notebooks."""
    settings = tomllib.loads((checkout / "pyproject.toml").read_text())
    assert settings["project"]["urls"] == {"Homepage": home}
    assert settings["tool"]["colabcnn"]["commit"] == installed
    (setup,) = {cells(checkout, name)["setup"] for name in NAMES}
    assert f'HOME, COMMIT = "{home}", "{installed}"\n' in setup
    for name in NAMES:
        assert badges("\n".join(cells(checkout, name).values())) == [f"{opened}/notebooks/{name}"]
    for readme in READMES:
        targets = badges((checkout / readme).read_text())
        assert sorted(targets) == [f"{opened}/notebooks/{name}" for name in NAMES]


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
    installed = git(checkout, "rev-parse", "HEAD")
    address, changed = stamp(url, checkout)
    assert (address.home, address.commit, address.branch) == (home, installed, "main")
    assert {path.relative_to(checkout) for path in changed} == set(contents(checkout))
    assert_stamped(checkout, home, installed, f"{opened}/blob/main")


def test_only_address_and_commit_change(checkout):
    before = contents(checkout)
    address, _ = stamp("https://github.com/you/it", checkout)
    for path, content in contents(checkout).items():
        for old, new in zip(before[path].decode().splitlines(), content.decode().splitlines(), strict=True):
            assert old == new or address.commit in new or "github.com/you/it" in new or "/github/you/it/" in new


def test_the_same_address_again_changes_nothing_although_there_is_a_new_commit(checkout):
    address, _ = stamp("https://github.com/you/it", checkout)
    commit(checkout)
    before = contents(checkout)
    assert stamp("https://github.com/you/it.git", checkout) == (address, [])
    assert contents(checkout) == before


def test_without_an_address_the_new_commit_is_installed_from_the_same_home(checkout):
    stamp("https://github.com/you/it", checkout)
    new = commit(checkout)
    address, changed = stamp(root=checkout)
    assert (address.home, address.commit) == ("https://github.com/you/it", new)
    assert {path.name for path in changed} == {"pyproject.toml", *NAMES}
    assert_stamped(
        checkout, "https://github.com/you/it", new, "https://colab.research.google.com/github/you/it/blob/main"
    )


def test_badges_open_the_branch(checkout):
    address, _ = stamp("https://github.com/you/it", checkout, branch="trunk")
    opened = "https://colab.research.google.com/github/you/it/blob/trunk"
    assert_stamped(checkout, "https://github.com/you/it", address.commit, opened)


def test_copy_without_an_address_has_none_in_its_setup_cell():
    assert PLACEHOLDER not in read_address(ROOT).setup_cell()


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


def test_checkout_without_a_commit_is_refused_and_changes_no_file(checkout):
    shutil.rmtree(checkout / ".git")
    before = contents(checkout)
    with pytest.raises(Error, match="has no commit that the notebooks could install"):
        stamp("https://github.com/you/it", checkout)
    assert contents(checkout) == before


def test_workflow_stamps_a_new_copy_once(tmp_path):
    """The steps of the workflow, in a clone whose remote they push to."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the workflow is written in YAML")
    home, copy = tmp_path / "you" / "colabcnn", tmp_path / "copy"
    git(tmp_path, "clone", "-q", "--bare", "--no-local", ROOT, home)
    git(home, "update-ref", "refs/heads/main", "HEAD")  # The tests' own checkout may be on no branch.
    git(home, "symbolic-ref", "HEAD", "refs/heads/main")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "address.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["stamp"]["steps"] if "run" in step]
    tips = [git(home, "rev-parse", "HEAD")]
    for _ in range(2):
        git(tmp_path, "clone", "-q", home, copy)
        branch = git(copy, "branch", "--show-current")
        variables = {"GITHUB_SERVER_URL": f"file://{tmp_path}", "GITHUB_REPOSITORY": "you/colabcnn"}
        variables |= {"GITHUB_REF_NAME": branch, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for step in steps:
            done = subprocess.run(["bash", "-e", "-c", step], cwd=copy, env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        tips.append(git(home, "rev-parse", "HEAD"))
        shutil.rmtree(copy)
    assert tips[1] == tips[2]
    assert git(home, "rev-parse", f"{tips[1]}^") == tips[0]
    changed = git(home, "diff", "--name-only", tips[0], tips[1]).splitlines()
    assert set(changed) == {"pyproject.toml", *READMES, *(f"notebooks/{name}" for name in NAMES)}
    git(tmp_path, "clone", "-q", home, copy)
    assert_stamped(copy, f"file://{home}", tips[0], f"file://{home}/blob/{branch}")


def test_command_refuses_an_invalid_address_in_one_line():
    command = [sys.executable, ROOT / "tools" / "stamp_address.py", "http://github.com/you/it"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: 'http://github.com/you/it' is not a home")
    assert refused.stderr.count("\n") == 1
