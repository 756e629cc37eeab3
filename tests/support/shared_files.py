"""Altered shared files for the tests, whose inner digest is correct."""

import copy
import hashlib
import json
import re
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, Error, fetch
from colabcnn.store.checkpoint import checkpoint_bytes, parse_checkpoint

# Augmentation and dropout are a third of what a short run costs.
COMPLETE = replace(ABLATIONS["06_final"], name="small", kernel_sizes=(3,), filters=(4, 8), batch_size=16)
EXPERIMENT = replace(COMPLETE, augmentation=None, dropout=0.0)
OPTIONS = {"data": "synthetic", "train_size": 100, "val_size": 40, "checkpoint_minutes": 0, "quiet": True}
DIGEST_INSIDE = re.compile(rb'(?<=\\"sha256\\": \\")[0-9a-f]{64}')


def with_digest(content):
    """Return a file's bytes with the correct inner digest, which is computed with zeros in its place."""
    content = DIGEST_INSIDE.sub(b"0" * 64, content, count=1)
    return DIGEST_INSIDE.sub(hashlib.sha256(content).hexdigest().encode(), content, count=1)


def altered(content, change):
    """Return the file of a checkpoint after `change` was applied to it."""
    checkpoint = copy.deepcopy(parse_checkpoint(content, "the file"))
    change(checkpoint)
    return with_digest(checkpoint_bytes(checkpoint))


def split_file(content):
    """Return `(header, data)`, the header as text."""
    size = int.from_bytes(content[:8], "little")
    return content[8 : 8 + size].decode(), content[8 + size :]


def join_file(header, data=b"", size=None):
    """Return a file of a header, as text or as a dict, and data; the size may be wrong."""
    header = (header if isinstance(header, str) else json.dumps(header)).encode()
    return with_digest((len(header) if size is None else size).to_bytes(8, "little") + header + data)


def with_header(content, change):
    """Return a file after `change` was applied to its header, a dict."""
    header, data = split_file(content)
    header = json.loads(header)
    change(header)
    return join_file(header, data)


def with_text(content, change):
    """Return a file after `change` was applied to the JSON text inside its header."""
    return with_header(content, lambda h: h["__metadata__"].update(colabcnn=change(h["__metadata__"]["colabcnn"])))


def check_refused(folder, source, *words, **options):
    """Check that a fetch raises one readable error and leaves no file."""
    before = {path for path in folder.parent.rglob("*") if path != folder}
    with pytest.raises(Error) as caught:
        fetch(source, folder=folder, quiet=True, **options)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert message.isprintable()
    assert len(message) < 700
    assert {path for path in folder.parent.rglob("*") if path != folder} - before <= {folder / "lock"}
