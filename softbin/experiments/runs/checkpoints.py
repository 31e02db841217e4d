"""Checkpoints of a training run, through orbax, that are verified before they are read."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from softbin.experiments.runs import workdir
from softbin.experiments.runs.newest_whole import newest_whole

_CHECKSUMS_FILE = "crc32.json"


class Checkpoints:
    """The last two checkpoints of a run, each with the checksums of its files.

    Where the newest ones are damaged, they are set aside as `damaged-EPOCH` and named on standard error.
    """

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        newest = _newest_whole(self._folder) if jax.process_index() == 0 else 0
        self._newest = int(multihost_utils.broadcast_one_to_all(np.int32(newest)))
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, epoch: int, state: Any) -> None:
        """Write the state after `epoch`; it counts only once its checksums are written too."""
        self._manager.save(epoch, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        if jax.process_index() == 0:
            path = self._folder / str(epoch)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            checksums = {file.relative_to(path).as_posix(): _checksum(file) for file in files}
            workdir.write(path / _CHECKSUMS_FILE, json.dumps(checksums, indent=2) + "\n")

    def restore(self, like: Any) -> tuple[int, Any]:
        """The newest checkpoint that was whole, as `(epoch, state)`; `(0, like)` where there was none."""
        if not self._newest:
            return 0, like
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(template))
        return self._newest, self._manager.restore(self._newest, args=arguments).state


def _newest_whole(folder: Path) -> int:
    """The epoch of the newest checkpoint that is whole, or 0.

    Orbax is not asked, since it leaves other reads behind when one fails, which complain long afterwards.
    """
    epochs = {int(path.name): path for path in folder.glob("*") if path.name.isdecimal()}
    return newest_whole(epochs, _damage, "training goes on from epoch")


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        checksums = json.loads((path / _CHECKSUMS_FILE).read_text())
        changed = [name for name, expected in checksums.items() if _checksum(path / name) != expected]
    except OSError as error:
        return f"{Path(error.filename).relative_to(path)}: {error.strerror}"
    except (ValueError, AttributeError):  # it is no JSON, or no object
        return f"{_CHECKSUMS_FILE} cannot be read"
    return f"{changed[0]} does not match its checksum" if changed else None


def _checksum(file: Path) -> int:
    return zlib.crc32(file.read_bytes())
