"""Files that are no libsvm files, or damaged: costs less than a second."""

import bz2
import gzip
import lzma

import numpy as np
import pytest

from softbin.experiments.datasets import libsvm
from softbin.experiments.runs.errors import UserError

GOOD = b"".join(b"%d 1:0.5 3:%d\n" % (i % 2, i) for i in range(400))


@pytest.mark.parametrize(("name", "pack"), [("file", bytes), ("file.gz", gzip.compress), ("file.bz2", bz2.compress)])
def test_packed_files_are_read_as_they_are_named(name, pack, tmp_path):
    (tmp_path / name).write_bytes(pack(GOOD + b"1 2:nan\n"))
    features, labels = libsvm.read(tmp_path / name)
    assert features.shape == (401, 3)
    assert np.array_equal(labels[:3], [0, 1, 0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("file.gz", gzip.compress(GOOD, mtime=0)[:-20], r"file.gz is damaged \(.*ended.*\): fetch it again"),
        ("file.bz2", bz2.compress(GOOD)[:-10], r"file.bz2 is damaged \(.*ended.*\): fetch it again"),
        ("file.gz", GOOD, "another name than its content: it is not packed, so take .gz from its name"),
        ("file.xz", lzma.compress(GOOD), "another name than its content: unpack it with unxz"),
        ("file", gzip.compress(GOOD, mtime=0), "another name than its content: unpack it with gunzip"),
        ("file", GOOD + b"1 3000000000:1", r"line 401: the index of '3000000000:1' is above 2147483647: hash features"),
        ("file", GOOD + b"1 3:1 1:1", "line 401: the index of '1:1' does not rise"),
        ("file", b"# ours\n\n" + GOOD + b"1 3:x", "line 403: '3:x' is not index:value"),
        ("file", GOOD + b"1 -3:1", "line 401: '-3:1' is not index:value"),
        ("file", GOOD + b"nan 1:1", "label that is no class .line 401: the label 'nan' is not a finite number"),
        ("file", GOOD + b"one 1:1", "not a libsvm file .line 401: the label 'one' is not a finite number"),
        ("file", bytes(range(256)), "line 1: the label .* is not a finite number"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line_and_a_remedy(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        libsvm.read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
