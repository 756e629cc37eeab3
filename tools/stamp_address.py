"""Write a copy's address into its badges, notebooks and READMEs: python tools/stamp_address.py [URL] [--branch NAME]

URL is an address such as https://github.com/you/colabcnn. The notebooks then install the current commit from there, so
it must be pushed. With the address that the copy already has, nothing changes. Without URL the address stays, and the
notebooks install the current commit, as for a new version. `.github/workflows/address.yml` calls this in a new copy.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
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
READMES = ("README.md", "README.ja.md")

SETUP = r"""# @title Google Drive, colabcnn, this runtime
import importlib.util
import os
import re
import sys
from urllib.parse import unquote
from urllib.request import urlopen

CODE = ""  # @param {"type": "string"}
HOME, COMMIT = "<home>", "<commit>"
try:
    from google.colab import drive

    if not os.path.ismount("/content/drive"):
        drive.mount("/content/drive")
except Exception as error:  # Not in Colab, or not allowed: what that means is printed below.
    print("Google Drive:", error)
places = ("..", ".", "colabcnn", "/content/drive/MyDrive/colabcnn")
found = [os.path.abspath(place) for place in places if os.path.exists(f"{place}/colabcnn/__init__.py")]
sys.path[:0] = [] if CODE else found[:1]
if "colabcnn" not in sys.modules and (CODE or not getattr(importlib.util.find_spec("colabcnn"), "origin", None)):
    if not HOME:
        try:  # Colab knows from which file on GitHub it opened this notebook.
            opened = urlopen(f"http://{os.environ['COLAB_JUPYTER_IP']}:9000/api/sessions", timeout=2).read().decode()
            file = r"fileId=(https://github\.com/[A-Za-z0-9-]+/[\w.-]+)/blob/([\w./+-]+)/notebooks/"
            HOME, COMMIT = re.search(file, unquote(opened), re.ASCII).groups()
        except Exception:
            raise RuntimeError("Open it from GitHub, or put the project on Drive as MyDrive/colabcnn.") from None
    %pip install --quiet --no-deps --force-reinstall git+{HOME}@{CODE or COMMIT}
importlib.import_module("colabcnn").welcome(CODE)"""


@dataclass(frozen=True)
class Address:
    """Where a copy lies, and what its notebooks install; `pyproject.toml` holds it.

    Args:
        home: such as "https://github.com/you/colabcnn"; with `PLACEHOLDER` if it is not known.
        commit: 40 hexadecimal digits, or "".
        branch: the one that badges open.
    """

    home: str
    commit: str
    branch: str

    def setup_cell(self) -> str:
        """Return the setup cell's text, the same in every notebook."""
        home = "" if PLACEHOLDER in self.home else self.home
        return SETUP.replace("<home>", home).replace("<commit>", self.commit)

    def badge(self, path: str) -> str:
        """Return the Markdown of a notebook's badge; Colab opens only notebooks on GitHub, so others are plain links.

        Args:
            path: the notebook's, in the checkout.
        """
        colab = self.home.replace(GITHUB, "https://colab.research.google.com/github/", 1)
        return f"[![Open In Colab]({BADGE_PICTURE})]({colab}/blob/{self.branch}/{path})"


def read_address(root: Path = ROOT) -> Address:
    """Return the address in a checkout's `pyproject.toml`.

    Raises:
        Error: there is none.
    """
    try:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return Address(settings["project"]["urls"]["Homepage"], **settings["tool"]["colabcnn"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError):
        raise Error(f"{root} holds no pyproject.toml with an address; run this in a checkout of the project.") from None


def stamp(url: str | None = None, root: Path = ROOT, branch: str | None = None) -> tuple[Address, list[Path]]:
    """Write a copy's address, and the commit that its notebooks install, into its files.

    Args:
        url: the copy's own address; None keeps the current one, and takes the current commit.
        root: the checkout.
        branch: the one that badges open; None keeps the current one.

    Returns:
        The address, and the rewritten files. If `url` and `branch` are the current ones, no file changes.

    Raises:
        Error: the address is not valid, or the folder is not a checkout.
    """
    before = read_address(root)
    home = before.home if url is None else url.removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"(https://[\w.:-]+|file://)/[\w./~-]+", home):
        raise Error(f"{url!r} is not a home page; expected an address such as https://github.com/you/colabcnn.")
    commit = before.commit if url is not None and home == before.home else _commit(root)
    address = Address(home, commit, branch or before.branch)
    files: dict[Path, Callable[[str], str]] = {root / "pyproject.toml": lambda text: _in_pyproject(text, address)}
    files |= {root / name: lambda text: with_badges(text, address) for name in READMES}
    files |= {path: lambda text: _in_notebook(text, address) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    changed = []
    for path, stamped in files.items():
        text = path.read_text(encoding="utf-8")
        if (after := stamped(text)) != text:
            write_atomically(path, after)
            changed.append(path)
    return address, changed


def with_badges(text: str, address: Address) -> str:
    """Return a text with all its badges pointing at an address."""
    return BADGE.sub(lambda match: address.badge(match[1]), text)


def _commit(root):
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True)
    if done.returncode:
        raise Error(f"{root} has no commit that the notebooks could install: {done.stderr.strip()}")
    return done.stdout.strip()


def _in_pyproject(text, address):
    for name, value in ("Homepage", address.home), ("commit", address.commit), ("branch", address.branch):
        text = re.sub(rf'(?m)^{name} = ".*"$', f'{name} = "{value}"', text)
    return text


def _in_notebook(text, address):
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        new = address.setup_cell() if cell["id"] == "setup" else with_badges(source, address)
        cell["source"] = new.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Stamp the given address, and print the changed files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", metavar="URL")
    parser.add_argument("--branch", metavar="NAME", help="the branch that badges open")
    options = parser.parse_args()
    try:
        address, changed = stamp(options.url, branch=options.branch)
    except Error as error:
        sys.exit(f"error: {error}")
    for path in changed:
        print(path.relative_to(ROOT))
    if changed:
        print(f"The notebooks install commit {address.commit} from {address.home}: push it.")
    else:
        print(f"The address is {address.home} already; nothing changed.")


if __name__ == "__main__":
    main()
