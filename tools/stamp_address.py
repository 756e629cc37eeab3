"""Write a copy's address and version into its notebooks, badges and README: python tools/stamp_address.py [URL]

URL is an address such as https://github.com/you/colabcnn; without it the address stays, as for a new version. The
notebooks install the version's tag from there: push that tag.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabcnn.errors import Error  # noqa: E402
from colabcnn.store.files import write_atomically  # noqa: E402

# The account in an address that is not set yet; no real account can have this name.
PLACEHOLDER = "YOUR_ACCOUNT"
GITHUB = "https://github.com/"
BADGE = re.compile(r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*/(notebooks/[\w-]+\.ipynb)\)")
BADGE_PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"

SETUP = """import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

HOME, TAG = "{home}", "{tag}"
with suppress(Exception):  # Not in Colab, or refused: what that means is said below.
    importlib.import_module("google.colab.drive").mount("/content/drive")
places = [Path(place).resolve() for place in ("..", ".", "colabcnn", "/content/drive/MyDrive/colabcnn")]
sys.path[:0] = [str(place) for place in places if (place / "colabcnn/__init__.py").exists()][:1]
if not getattr(importlib.util.find_spec("colabcnn"), "origin", None):
    assert "{placeholder}" not in HOME, "Put the project on Drive as MyDrive/colabcnn, or call tools/stamp_address.py"
    %pip install --quiet --no-deps git+{{HOME}}@{{TAG}}
importlib.import_module("colabcnn").welcome(TAG)"""


def project(root=ROOT):
    """Return `[project]` of a checkout's `pyproject.toml`.

    Raises:
        OSError: there is none.
    """
    return tomllib.loads((Path(root) / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def stamp(url=None, root=ROOT):
    """Write a copy's address, and its version's tag, into `pyproject.toml`, the notebooks and the README.

    Args:
        url: the copy's own address, such as "https://github.com/you/colabcnn"; None keeps the current address, as for a
            new version.
        root: the checkout.

    Returns:
        `(home, tag, changed)`: the address, the tag that the notebooks install, and the rewritten files.

    Raises:
        Error: the address is not valid, or the folder is not a checkout.
    """
    root = Path(root)
    try:
        settings = project(root)
    except OSError:
        raise Error(f"{root} holds no pyproject.toml; run this in a checkout of the project.") from None
    home, tag = settings["urls"]["Homepage"], f"v{settings['version']}"
    if url is not None:
        home = url.removesuffix("/").removesuffix(".git")
        if not re.fullmatch(r"(https://[\w.:-]+|file://)/[\w./~-]+", home):
            raise Error(f"{url!r} is not a home page; expected an address such as https://github.com/you/colabcnn.")
    files = {root / "pyproject.toml": lambda text: re.sub(r'(?m)^Homepage = ".*"$', f'Homepage = "{home}"', text)}
    files[root / "README.md"] = lambda text: stamped_badges(text, home, tag)
    files |= dict.fromkeys(sorted((root / "notebooks").glob("*.ipynb")), lambda text: _stamped(text, home, tag))
    changed = []
    for path, stamped in files.items():
        before = path.read_text(encoding="utf-8")
        if (after := stamped(before)) != before:
            write_atomically(path, after)
            changed.append(path)
    return home, tag, changed


def setup_cell(home, tag):
    """Return the setup cell's text, the same in every notebook."""
    return SETUP.format(home=home, tag=tag, placeholder=PLACEHOLDER)


def badge(home, tag, path):
    """Return the Markdown of a notebook's badge; Colab opens only notebooks on GitHub, so others are plain links.

    Args:
        home, tag: the copy's address and its tag.
        path: the notebook's, in the checkout.
    """
    colab = home.replace(GITHUB, "https://colab.research.google.com/github/", 1)
    return f"[![Open In Colab]({BADGE_PICTURE})]({colab}/blob/{tag}/{path})"


def stamped_badges(text, home, tag):
    """Return a text with all its badges pointing at a home."""
    return BADGE.sub(lambda match: badge(home, tag, match[1]), text)


def _stamped(text, home, tag):
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        new = setup_cell(home, tag) if cell["id"] == "setup" else stamped_badges(source, home, tag)
        cell["source"] = new.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main():
    """Stamp the given address, and print the changed files."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    try:
        address, tag, changed = stamp(*sys.argv[1:])
    except Error as error:
        sys.exit(f"error: {error}")
    for path in changed:
        print(path)
    print(f"The address is {address}; the notebooks install {tag} from there: push that tag.")


if __name__ == "__main__":
    main()
