"""The setup cell finds the library, or installs a commit of it from the notebook's own repository."""

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from stamp_address import Address
from support.repository import git

pytestmark = pytest.mark.notebook

ROOT = Path(__file__).resolve().parents[2]
GITHUB = "https://github.com/you/colabcnn"
UNKNOWN = "Open it from GitHub, or put the project on Drive as MyDrive/colabcnn."
UNSTAMPED = Address("https://github.com/YOUR_ACCOUNT/colabcnn", "", "main")
RESULT_FILES = ["history.csv", "run.json"]
# No variable of this process leads to the library or chooses the backend.
OTHERS = ("PYTHONPATH", "VIRTUAL_ENV", "KERAS_BACKEND")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OTHERS}
RUN = "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n{before}\n"
RUN += "done = InteractiveShell.instance().run_cell(sys.stdin.read())\nsys.exit(not done.success)"


@pytest.fixture
def python(tmp_path_factory):
    """A Python with all packages of this one except the library itself."""
    folder = tmp_path_factory.mktemp("runtime")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # Python reads `.pth` files of this folder only, so an editable installation of the library is not found.
    (packages / "all.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A repository of the project, with a measured run on its branch `new/idea`; git finds it as GITHUB."""
    folder = tmp_path_factory.mktemp("github.com") / "you" / "colabcnn"
    git(ROOT, "clone", "-q", "--no-local", ROOT, folder)
    git(folder, "checkout", "-q", "-B", "main")
    git(folder, "checkout", "-q", "-b", "new/idea")
    measured = folder / "results" / "06_final" / "seed-7"
    measured.mkdir(parents=True)
    for name in RESULT_FILES:
        (measured / name).write_text("")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "a measured run")
    git(folder, "checkout", "-q", "main")
    return folder


@pytest.fixture
def github(home, monkeypatch):
    """Commits of that repository by branch; child processes take GitHub's address for its folder."""
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_COUNT", "1")
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_KEY_0", f"url.file://{home.parents[1]}/.insteadOf")
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_VALUE_0", "https://github.com/")
    return {branch: git(home, "rev-parse", branch) for branch in ("main", "new/idea")}


@contextlib.contextmanager
def colab_with(path, waited=None):
    """Serve, as Colab's runtime does, the list of sessions with a notebook's path; yield the runtime's variables.

    With a list `waited` it does not answer, and adds the seconds until the cell hangs up.
    """

    class Sessions(BaseHTTPRequestHandler):
        def do_GET(self):
            if waited is not None:
                began = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    self.connection.recv(1)
                waited.append(time.monotonic() - began)
            reply = f'[{{"kernel": {{"id": "1"}}, "path": "{path}"}}]'.encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(200 if self.path == "/api/sessions" else 404)
                self.end_headers()
                self.wfile.write(reply)

        def log_message(self, *arguments):
            pass

    host = f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.1"  # Another process may run these tests, too.
    server = ThreadingHTTPServer((host, 9000), Sessions)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {"COLAB_JUPYTER_IP": host, "no_proxy": host}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def opened_from(ref, owner="you", notebook="06_final.ipynb"):
    return f"fileId=https://github.com/{owner}/colabcnn/blob/{ref}/notebooks/{notebook}"


def run_cell(python, folder, address, *, code="", before="", timeout=None, backend="jax", **environment):
    # JAX is imported in half of TensorFlow's time.
    environment |= {"PIP_NO_BUILD_ISOLATION": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | (
        {"KERAS_BACKEND": backend} if backend else {}
    )
    cell = address.setup_cell().replace('CODE = ""', f'CODE = "{code}"')
    return subprocess.run(
        [python, "-c", RUN.format(before=before)],
        input=cell,
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def library(python, folder):
    """Return the folder of the library that this Python finds, or None."""
    code = "import importlib.util as util; print(getattr(util.find_spec('colabcnn'), 'origin', None) or '')"
    found = subprocess.run([python, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True).stdout
    return Path(found.strip()).parent if found.strip() else None


def assert_installed(completed, python, folder, commit):
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert f"Commit of colabcnn: {commit}\n" in completed.stdout
    assert python.parent.parent in library(python, folder).parents


@pytest.mark.parametrize("encode", [str, quote], ids=["plain", "quoted"])
def test_path_of_the_notebook_is_understood_in_each_encoding(python, tmp_path, encode):
    before = "InteractiveShell.instance().register_magic_function(print, magic_name='pip')"
    with colab_with(encode(opened_from("new/idea"))) as runtime:
        completed = run_cell(python, tmp_path, UNSTAMPED, before=before, **runtime)
    assert f" git+{GITHUB}@new/idea\n" in completed.stdout


def test_commit_of_the_branch_that_the_notebook_was_opened_from_is_installed(python, github, tmp_path):
    with colab_with(quote(opened_from("new/idea"), safe="")) as runtime:
        completed = run_cell(python, tmp_path, UNSTAMPED, **runtime)
    assert_installed(completed, python, tmp_path, github["new/idea"])
    measured = library(python, tmp_path) / "results" / "06_final" / "seed-7"
    assert sorted(path.name for path in measured.iterdir()) == RESULT_FILES


def test_stamped_commit_is_installed_wherever_the_notebook_was_opened_from(python, github, tmp_path):
    address = Address(GITHUB, github["main"], "main")
    with colab_with(opened_from("new/idea", owner="somebody")) as runtime:
        completed = run_cell(python, tmp_path, address, **runtime)
    assert_installed(completed, python, tmp_path, github["main"])


def test_code_names_the_commit_even_beside_a_library(python, github, tmp_path):
    make_checkout(tmp_path)
    address = Address(GITHUB, github["main"], "main")
    (tmp_path / "notebooks").mkdir()
    completed = run_cell(python, tmp_path / "notebooks", address, code=github["new/idea"][:12])
    assert_installed(completed, python, tmp_path / "notebooks", github["new/idea"])
    assert "CODE IS NOT IN USE" not in completed.stdout


@pytest.mark.parametrize(
    "path",
    [
        "fileId=1hA8Y0C1q2w3e4r5t6y7u8i9o0p",  # A copy on Drive.
        opened_from("main", owner="a;touch x"),
        opened_from("main", owner="a$(touch x)"),
        opened_from("main;touch x"),
        opened_from("`touch x`"),
        opened_from("main").replace("https://github.com", "https://github.example"),
        "\\ud800",
    ],
)
def test_answer_that_names_no_repository_on_github_is_an_error_and_reaches_no_command(python, tmp_path, path):
    for encode in (str, lambda text: quote(text, safe="")):
        with colab_with(encode(path)) as runtime:
            completed = run_cell(python, tmp_path, UNSTAMPED, **runtime)
        assert completed.returncode == 1
        assert UNKNOWN in completed.stdout
    assert not list(tmp_path.iterdir())
    assert not library(python, tmp_path)


def test_runtime_that_does_not_answer_is_not_waited_for(python, tmp_path):
    waited = []
    with colab_with(opened_from("main"), waited) as runtime:
        completed = run_cell(python, tmp_path, UNSTAMPED, timeout=120, **runtime)
    (seconds,) = waited
    assert seconds < 8
    assert UNKNOWN in completed.stdout
    assert UNKNOWN in run_cell(python, tmp_path, UNSTAMPED, COLAB_JUPYTER_IP="127.0.0.1").stdout  # No server.
    assert UNKNOWN in run_cell(python, tmp_path, UNSTAMPED).stdout  # Not in Colab.


def make_checkout(folder):
    for name in ("colabcnn", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)


def test_library_beside_the_notebook_is_used(python, tmp_path):
    make_checkout(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for folder in (tmp_path, tmp_path / "notebooks"):
        completed = run_cell(python, folder, UNSTAMPED)
        assert completed.returncode == 0, completed.stdout
        assert re.search(r"colabcnn \d", completed.stdout)


def test_empty_folder_of_the_same_name_is_not_the_library(python, tmp_path):
    (tmp_path / "colabcnn").mkdir()
    assert UNKNOWN in run_cell(python, tmp_path, UNSTAMPED).stdout
    make_checkout(tmp_path / "colabcnn")
    completed = run_cell(python, tmp_path, UNSTAMPED)
    assert completed.returncode == 0, completed.stdout


def make_drive(folder, mount):
    """Write a package `google.colab.drive` with this body of `mount`."""
    package = folder / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")  # There is none in `google` itself, a folder that other packages share.
    (package / "output.py").write_text("")  # JAX imports it in Colab.
    (package / "drive.py").write_text(f"def mount(place):\n    {mount}\n")
    return {"COLAB_RELEASE_TAG": "release-colab", "PYTHONPATH": str(folder)}


@pytest.mark.parametrize("error", ["NotImplementedError('no Drive here')", "RuntimeError('credentials refused')"])
def test_setup_continues_without_drive_and_reports_what_that_means(python, tmp_path, error):
    make_checkout(tmp_path)
    completed = run_cell(python, tmp_path, UNSTAMPED, **make_drive(tmp_path, f"raise {error}"))
    assert completed.returncode == 0, completed.stdout
    assert error.split("'")[1] in completed.stdout
    assert "GOOGLE DRIVE IS NOT MOUNTED" in completed.stdout


def test_mounted_drive_is_not_mounted_again(python, tmp_path):
    make_checkout(tmp_path)
    runtime = make_drive(tmp_path, "raise AssertionError('mounted twice')")
    before = (
        "import os, shutil, types; os.path.ismount = lambda path: True;"
        "shutil.disk_usage = lambda path: types.SimpleNamespace(free=10**9)"
    )
    completed = run_cell(python, tmp_path, UNSTAMPED, before=before, **runtime)
    assert completed.returncode == 0, completed.stdout
    assert "mounted twice" not in completed.stdout
    assert "GOOGLE DRIVE IS NOT MOUNTED" not in completed.stdout


@pytest.mark.parametrize("backend, package", [("jax", "jaxlib"), (None, "tensorflow")], ids=["given", "default"])
def test_given_backend_is_kept_and_tensorflow_is_the_default(python, tmp_path, backend, package):
    make_checkout(tmp_path)
    completed = run_cell(python, tmp_path, UNSTAMPED, backend=backend)
    assert f"{package} " in completed.stdout
