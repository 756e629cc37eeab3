"""Whatever is done to an archive, `fetch` brings the run as it was or says in one error why not."""

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colabcnn import Error, export, fetch, run
from file_server import FileServer
from test_sharing import EXPERIMENT, OPTIONS, files_of, zipped

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

QUICK = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(EXPERIMENT, folder / "run", epochs=1, **OPTIONS)
    export(folder / "run", folder / "run.zip", quiet=True)
    return (folder / "run.zip").read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = FileServer(tmp_path_factory.mktemp("authority"))
    yield server
    server.close()


def brought_or_refused(server, archive, content):
    """Fetch `content`; return whether it was taken, having seen that only what may be there is there."""
    server.files["/run.zip"] = content
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "fetched"
        try:
            run_dir = fetch(f"{server.address}/run.zip", folder=folder, quiet=True)
        except Error as error:
            assert "\n" not in str(error)
            assert {path.name for path in Path(outside).rglob("*")} <= {"fetched", "lock"}
            return False
        digest = hashlib.sha256(content).hexdigest()
        assert run_dir == folder / "small" / f"seed-0-{digest[:8]}"
        names = {path.name for path in run_dir.rglob("*")}
        assert names == {"fetched.json", *files_of(archive)}
        assert {path.name for path in Path(outside).rglob("*")} - names == {"fetched", "lock", "small", run_dir.name}
        return all((run_dir / name).read_bytes() == content for name, content in files_of(archive).items())


# What an archive is made of: where the interesting bytes are, at its beginning, in its directory and at its end.
places = st.one_of(st.integers(0, 200), st.integers(-700, -1), st.integers(-(1 << 30), 1 << 30))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set"), places, st.integers(0, 255)),
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("cut"), places, st.integers(0, 2000)),
        st.tuples(st.just("insert"), places, st.binary(max_size=40)),
        st.tuples(st.just("copy"), places, places),
        st.tuples(st.just("four"), places, st.sampled_from([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])),
    ),
    min_size=1,
    max_size=4,
)


def altered(content, change):
    kind, place, value = change
    content = bytearray(content)
    place %= max(1, len(content))
    if kind == "set":
        content[place : place + 1] = bytes([value])
    elif kind == "flip":
        content[place : place + 1] = bytes([(content[place] if content else 0) ^ 1 << value])
    elif kind == "cut":
        del content[place : place + value]
    elif kind == "insert":
        content[place:place] = value
    elif kind == "copy":
        piece = content[value % max(1, len(content)) :][:100]
        content[place : place + len(piece)] = piece
    else:
        content[place : place + 4] = value.to_bytes(4, "little")
    return bytes(content)


@QUICK
@given(changes=changes)
def test_altered_bytes(server, archive, changes):
    content = archive
    for change in changes:
        content = altered(content, change)
    taken = brought_or_refused(server, archive, content)
    # What a zip says of its files' dates may be altered, and they are the same all the same.
    assert taken or content != archive


names = st.one_of(
    st.sampled_from(["../up", "/root", "a/../../b", "checkpoints/x", "run.json", "RUN.JSON", "run.json ", "lock", "."]),
    st.text(min_size=1, max_size=20).filter(lambda name: "\x00" not in name),
)


@QUICK
@given(
    added=st.lists(st.tuples(names, st.binary(max_size=20)), max_size=3),
    replaced=st.dictionaries(st.sampled_from(["run.json", "history.csv", "model.keras"]), st.binary(max_size=60)),
    left_out=st.sets(st.sampled_from(["run.json", "history.csv", "curves.png", "model.keras"]), max_size=1),
    manifest=st.one_of(st.none(), st.binary(max_size=40)),
    mode=st.sampled_from([0o100644, 0o120777, 0o040755, 0o10644]),
)
def test_other_files(server, archive, added, replaced, left_out, manifest, mode):
    files = {name: content for name, content in files_of(archive).items() if name not in left_out}
    listed = [*{**files, **{name: content for name, content in replaced.items() if name in files}}.items(), *added]
    try:
        content = zipped(listed, manifest=manifest, mode=mode)
    except UnicodeEncodeError:
        return
    untouched = not (added or left_out) and listed == list(files.items()) and manifest is None and mode == 0o100644
    assert brought_or_refused(server, archive, content) == untouched
