import gzip
import struct

import numpy as np
import pytest

from softbin.experiments import data
from softbin.experiments.errors import UserError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def fashion_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, size in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (size, 28, 28), np.uint8)
        labels = rng.integers(0, 10, size).astype(np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_digits_have_ten_classes_and_pixels_in_the_unit_interval():
    dataset = data.load("digits")
    assert dataset.train_images.shape == (1437, 64)
    assert dataset.test_images.shape == (360, 64)
    assert dataset.train_images.dtype == np.float32
    assert (dataset.train_images.min(), dataset.train_images.max()) == (0, 1)
    assert set(dataset.test_labels) == set(range(10))


def test_train_examples_takes_the_first():
    assert np.array_equal(data.load("digits", train_examples=100).train_images, data.load("digits").train_images[:100])


@pytest.mark.parametrize("train_examples", [-1, 1438])
def test_train_examples_outside_the_data_set_are_refused(train_examples):
    with pytest.raises(UserError, match=rf"train_examples {train_examples} is outside \[0, 1437\]"):
        data.load("digits", train_examples=train_examples)


def test_fashion_mnist_is_read_from_plain_and_gzipped_files(fashion_folder):
    dataset = data.load("fashion_mnist", str(fashion_folder))
    raw = np.frombuffer(gzip.decompress((fashion_folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:]
    assert np.allclose(dataset.train_images, raw.reshape(20, 784) / 255)
    assert dataset.test_images.shape == (10, 784)


def test_the_environment_variable_names_the_folder(fashion_folder, monkeypatch):
    monkeypatch.setenv(data.DATA_VARIABLE, str(fashion_folder))
    assert len(data.load("fashion_mnist").train_labels) == 20


def test_missing_files_are_explained_in_two_lines(tmp_path):
    with pytest.raises(UserError, match=r"(?s)dataset-fashion-mnist.*--config.data_dir or SOFTBIN_DATA") as raised:
        data.load("fashion_mnist", str(tmp_path))
    assert len(str(raised.value).splitlines()) == 2


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="unknown dataset 'mnist': choose one of digits, fashion_mnist"):
        data.load("mnist")


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))


def test_idx_round_trip(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(GOOD)
    assert np.array_equal(data.read_idx(path), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("file", GOOD[:-1], "truncated or damaged, 23 bytes where its header promises 24"),
        ("file", GOOD + b"x", "truncated or damaged, 25 bytes"),
        ("file", GOOD[:9], "truncated in its header"),
        ("file", b"", "not an idx file"),
        ("file", b"<html>not found</html>", "not an idx file"),
        ("file.gz", gzip.compress(GOOD)[:-5], "is damaged"),
        ("file.gz", b"\x1f\x8b\x08 rubbish", "is damaged"),
        ("file.gz", GOOD, "is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        data.read_idx(path)
    assert str(path) in str(raised.value)
    assert "fetch it again" in str(raised.value)


def test_labels_that_do_not_fit_the_images_are_refused(fashion_folder):
    (fashion_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))
    with pytest.raises(UserError, match=r"t10k has images of shape \(10, 28, 28\) and labels of shape \(9,\)"):
        data.load("fashion_mnist", str(fashion_folder))
