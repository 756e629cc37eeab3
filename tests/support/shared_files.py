"""Shared files for the tests: altered, with a digest inside that is right all the same."""

import copy
import hashlib
import json
import re
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, Error, fetch
from colabcnn.store.checkpoint import checkpoint_bytes, parse_checkpoint

EXPERIMENT = replace(ABLATIONS["06_final"], name="small", kernel_sizes=(3,), filters=(4, 4, 8), batch_size=16)
OPTIONS = {"data": "synthetic", "train_size": 100, "val_size": 40, "checkpoint_minutes": 0, "quiet": True}
DIGEST_INSIDE = re.compile(rb'(?<=\\"sha256\\": \\")[0-9a-f]{64}')


def with_digest(content):
    """Return a file's bytes with the digest inside that they now have: it is taken with zeros in its place."""
    content = DIGEST_INSIDE.sub(b"0" * 64, content, count=1)
    return DIGEST_INSIDE.sub(hashlib.sha256(content).hexdigest().encode(), content, count=1)


def altered(content, change):
    """Return the file of a checkpoint that `change` was applied to."""
    checkpoint = copy.deepcopy(parse_checkpoint(content, "the file"))
    change(checkpoint)
    return with_digest(checkpoint_bytes(checkpoint))


def taken_apart(content):
    """Return `(header, data)`, the header as text."""
    size = int.from_bytes(content[:8], "little")
    return content[8 : 8 + size].decode(), content[8 + size :]


def put_together(header, data=b"", size=None):
    """Return a file of a header, as text or as a dict, and data; its size may lie."""
    header = (header if isinstance(header, str) else json.dumps(header)).encode()
    return with_digest((len(header) if size is None else size).to_bytes(8, "little") + header + data)


def with_header(content, change):
    """Return a file whose header, a dict, `change` was applied to."""
    header, data = taken_apart(content)
    header = json.loads(header)
    change(header)
    return put_together(header, data)


def with_text(content, change):
    """Return a file whose JSON inside the header, as text, is what `change` returns of it."""
    return with_header(content, lambda h: h["__metadata__"].update(colabcnn=change(h["__metadata__"]["colabcnn"])))


def check_refused(folder, source, *words, **options):
    """Check that a fetch is one readable error, and that nothing of it is left anywhere near."""
    before = {path for path in folder.parent.rglob("*") if path != folder}
    with pytest.raises(Error) as caught:
        fetch(source, folder=folder, quiet=True, **options)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert message.isprintable()
    assert len(message) < 700
    assert {path for path in folder.parent.rglob("*") if path != folder} - before <= {folder / "lock"}
