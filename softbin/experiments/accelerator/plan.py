"""How much the kit does: all of it on an accelerator, or a little by interpreted kernels."""

from typing import NamedTuple

from softbin._engine.kernels import Interpreted
from softbin.experiments.accelerator import roofline


class Plan(NamedTuple):
    """What is checked, timed and trained."""

    kernels: tuple[str, ...]  # implementations beside "xla"
    regularizers: tuple[str, ...]  # of the hard cases
    most_entries: int  # of a hard case
    checked: tuple[int, int]  # the shape of the logits on which ways of use are checked
    losses: tuple[tuple[int, int], ...]  # examples and classes
    ranked: tuple[int, ...]  # lengths of rows in which hard choices are checked
    lengths: tuple[int, ...]  # of rows
    entries: int  # of all rows together
    chosen: tuple[int, ...]  # entries of each
    dtypes: tuple[str, ...]
    vocabularies: tuple[tuple[int, int], ...]  # rows and tokens
    seconds: float  # of a program with many calls
    trained: tuple[str, ...]  # losses of the network
    epochs: int
    batch_size: int
    random_images: int  # to train on, where no others are
    interpret: bool


FULL = Plan(
    kernels=("pallas",),
    regularizers=("euclidean", "binary_entropy"),
    most_entries=1_000_000,
    checked=(4096, 10),
    losses=roofline.SIZES,
    ranked=(512, 50_257, 151_936),
    lengths=(8, 64, 1024, 8192, 16_384),
    entries=2**22,
    chosen=(2, 8),
    dtypes=("float32", "bfloat16"),
    vocabularies=((8, 151_936), (32, 32_000), (1, 151_936)),
    seconds=0.1,
    trained=("hypersimplex", "cross_entropy"),
    epochs=6,
    batch_size=8192,
    random_images=60_000,
    interpret=False,
)
SMALL = Plan(
    kernels=tuple(Interpreted),
    regularizers=("euclidean",),
    most_entries=512,
    checked=(96, 3),
    losses=((128, 10),),
    ranked=(600,),
    lengths=(16,),
    entries=256,
    chosen=(2,),
    dtypes=("bfloat16",),
    vocabularies=((2, 64),),
    seconds=0.0,
    trained=("hypersimplex",),
    epochs=2,
    batch_size=32,
    random_images=64,
    interpret=True,
)
