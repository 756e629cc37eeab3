"""However a shared file is altered, `fetch` returns the original run or raises one readable error."""

import copy
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colabcnn import Error, fetch
from colabcnn.sharing.checks import read_shared
from colabcnn.store.checkpoint import Checkpoint
from colabcnn.store.run_record import RunRecord
from support.shared_files import with_digest, with_text

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def quick(max_examples):
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def check_fetched_or_refused(server, content):
    """Fetch a file and check that only the expected files are left; return whether it was accepted."""
    server.files["/run"] = content
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside) / "fetched"
        try:
            run_dir = fetch(f"{server.address}/run", folder=folder, quiet=True)
        except Error as error:
            assert str(error).isprintable()
            assert len(str(error)) < 700
            assert {path.name for path in Path(outside).rglob("*")} <= {"fetched", "lock"}
            return False
        digest = hashlib.sha256(content).hexdigest()
        assert run_dir == folder / run_dir.parent.name / run_dir.name
        assert run_dir.name.endswith(f"-{digest[:8]}")
        names = {path.name for path in run_dir.iterdir()}
        assert names == {"shared.json", "run.json", "history.csv", "curves.png", "checkpoints"}
        (checkpoint,) = (run_dir / "checkpoints").iterdir()
        assert checkpoint.read_bytes() == content
        assert {path.name for path in folder.iterdir()} == {"lock", run_dir.parent.name}
        return True


def check_run_or_error(content):
    """Read a file and check that the result is a run or one readable error."""
    try:
        checkpoint, record = read_shared(content)
    except Error as error:
        assert str(error).isprintable()
        return
    assert isinstance(checkpoint, Checkpoint)
    assert isinstance(record, RunRecord)


# At the start of the file, in its header, and anywhere.
places = st.one_of(st.integers(0, 200), st.integers(0, 4000), st.integers(-(1 << 30), 1 << 30))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set"), places, st.integers(0, 255)),
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("truncate"), places, st.integers(0, 2000)),
        st.tuples(st.just("insert"), places, st.binary(max_size=40)),
        st.tuples(st.just("copy"), places, places),
        st.tuples(st.just("four"), places, st.sampled_from([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])),
    ),
    min_size=1,
    max_size=4,
)


def changed(content, change):
    kind, place, value = change
    content = bytearray(content)
    place %= max(1, len(content))
    if kind == "set":
        content[place : place + 1] = bytes([value])
    elif kind == "flip":
        content[place : place + 1] = bytes([(content[place] if content else 0) ^ 1 << value])
    elif kind == "truncate":
        del content[place : place + value]
    elif kind == "insert":
        content[place:place] = value
    elif kind == "copy":
        piece = content[value % max(1, len(content)) :][:100]
        content[place : place + len(piece)] = piece
    else:
        content[place : place + 4] = value.to_bytes(4, "little")
    return bytes(content)


def changed_by(content, changes):
    for change in changes:
        content = changed(content, change)
    return content


@quick(300)
@given(changes=changes)
def test_altered_bytes_are_refused(file_server, shared, changes):
    content = changed_by(shared, changes)
    assert check_fetched_or_refused(file_server, content) == (content == shared)


@quick(1000)
@given(changes=changes)
def test_altered_bytes_with_a_correct_digest_are_a_run_or_one_error(shared, changes):
    check_run_or_error(with_digest(changed_by(shared, changes)))


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**31, 2**63, 10**400, 1e308, -0.0, 5e-324, "", "..", "a/b", "\x1b[2J", "<b>", "\ud800"]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=5,
)


def nodes(value):
    """Return `(container, key)` of every value in nested JSON types."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [pair for key, member in items for pair in [(value, key), *nodes(member)]]


def with_values(content, chosen, value, remove):
    """Replace or remove some values in the text of a file."""

    def change(text):
        text = json.loads(text)
        for number in chosen:
            places = nodes(text)
            container, key = places[number % len(places)]
            if remove:
                del container[key]
            else:
                container[key] = copy.deepcopy(value)
        return json.dumps(text)

    return with_text(content, change)


replacements = {
    "chosen": st.lists(st.integers(0, 10_000), min_size=1, max_size=2),
    "value": values,
    "remove": st.booleans(),
}


@quick(500)
@given(**replacements)
def test_altered_text_is_a_run_or_one_error(shared, chosen, value, remove):
    check_run_or_error(with_values(shared, chosen, value, remove))


@quick(60)
@given(**replacements)
def test_altered_text_is_fetched_completely_or_not_at_all(file_server, shared, chosen, value, remove):
    check_fetched_or_refused(file_server, with_values(shared, chosen, value, remove))
