"""Checkpoints of a training run, through orbax, that are verified before they are used."""

import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


class Checkpoints:
    """The last two checkpoints of a run, each with a checksum of its arrays."""

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, epoch: int, state: Any) -> None:
        """Write the state after `epoch`; it counts only once it is complete."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), checksum=ocp.args.JsonSave({"crc32": _checksum(state)})
        )
        self._manager.save(epoch, args=arguments)

    def restore(self, like: Any) -> tuple[int, Any]:
        """The newest checkpoint that is whole, as `(epoch, state)`; `(0, like)` where there is none.

        A damaged one is named on standard error and set aside as `damaged-EPOCH`.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                return epoch, self._read(epoch, like)
            except Exception as error:  # orbax and tensorstore raise many kinds for a file that they cannot read
                self._set_aside(epoch, error)
        return 0, like

    def _read(self, epoch: int, like: Any) -> Any:
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(template), checksum=ocp.args.JsonRestore())
        found = self._manager.restore(epoch, args=arguments)
        if _checksum(found.state) != found.checksum["crc32"]:
            raise ValueError("its arrays do not match their checksum")
        return found.state

    def _set_aside(self, epoch: int, error: Exception) -> None:
        damaged = self._folder / f"damaged-{epoch}"
        reason = " ".join(str(error).split())[:200]
        self._manager.close()
        if jax.process_index() == 0:
            print(
                f"checkpoint {self._folder / str(epoch)} is damaged, moved to {damaged.name}: {reason}", file=sys.stderr
            )
            shutil.rmtree(damaged, ignore_errors=True)
            (self._folder / str(epoch)).rename(damaged)
        multihost_utils.sync_global_devices("checkpoint set aside")
        self._manager = self._open()


def _checksum(state: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
    return checksum
