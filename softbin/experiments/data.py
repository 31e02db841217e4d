"""Data sets, as arrays in memory: digits ships with scikit-learn, Fashion-MNIST is read from its idx files."""

import gzip
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from softbin.experiments.errors import UserError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DATA_VARIABLE = "SOFTBIN_DATA"
CLASSES = 10


class Dataset(NamedTuple):
    """Images of shape (n, features) in [0, 1] as float32, labels of shape (n,) as int32."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(name: str, data_dir: str = "", train_examples: int = 0) -> Dataset:
    """Load a data set by name, or only its first `train_examples` for training where that is not 0.

    Raises:
      UserError: the name is unknown, or files are missing or damaged.
    """
    if name not in _LOADERS:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(_LOADERS)}")
    dataset = _LOADERS[name](data_dir)
    available = len(dataset.train_labels)
    if not 0 <= train_examples <= available:
        raise UserError(f"train_examples {train_examples} is outside [0, {available}], the size of {name}; 0 takes all")
    if train_examples:
        dataset = dataset._replace(
            train_images=dataset.train_images[:train_examples], train_labels=dataset.train_labels[:train_examples]
        )
    return dataset


def _digits(data_dir: str) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    split = train_test_split(images, labels.astype(np.int32), test_size=0.2, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    return Dataset(train_images, train_labels, test_images, test_labels)


def _fashion_mnist(data_dir: str) -> Dataset:
    folder = Path(data_dir or os.environ.get(DATA_VARIABLE) or DEBIAN_FASHION_MNIST)

    def read(part: str) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
        labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or labels.max(initial=0) >= CLASSES:
            raise UserError(
                f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}, which is not "
                "Fashion-MNIST: fetch the files again"
            )
        return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int32)

    return Dataset(*read("train"), *read("t10k"))


_LOADERS = {"digits": _digits, "fashion_mnist": _fashion_mnist}


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(
        f"Fashion-MNIST is not in {folder} (no {name}.gz): install Debian's package dataset-fashion-mnist,\n"
        f"or put its four idx files into a folder and name it with --config.data_dir or {DATA_VARIABLE}."
    )


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not.

    Raises:
      UserError: the file is truncated, damaged or of another format.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise UserError(f"{path} is not an idx file of bytes: fetch it again")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{path} is truncated in its header: fetch it again")
    shape = np.frombuffer(content[4:header], ">u4").astype(int)
    if len(content) != header + shape.prod():
        raise UserError(
            f"{path} is truncated or damaged, {len(content)} bytes where its header promises "
            f"{header + shape.prod()}: fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
