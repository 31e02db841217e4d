"""Losses and diagnoses of a batch that is spread over two processes are those of the batch in one place."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests import compiling
from tests.batch import LABELS, LOGITS, LOSSES, WHERE, diagnosis, hard_choice, value_and_gradient

PROCESSES, DEVICES_EACH = 2, 2


def test_two_processes_agree_with_one_device(port):
    environment = {**os.environ, "XLA_FLAGS": compiling.flags(DEVICES_EACH)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.test_processes", str(port), str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(PROCESSES)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    for output, _ in outputs:
        differences = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        assert len(differences) == len(WHERE) * (len(LOSSES) + 2)
        assert max(differences.values()) <= 1e-6, differences


def relative_difference(spread, whole) -> float:
    """Of the parts that this process holds, to the largest number of the whole."""
    differences = [
        np.max(np.abs(np.asarray(shard.data, float) - whole_leaf[shard.index])) / np.max(np.abs(whole_leaf))
        for leaf, whole_leaf in zip(jax.tree.leaves(spread), map(np.asarray, jax.tree.leaves(whole)), strict=True)
        for shard in leaf.addressable_shards
    ]
    return float(max(differences))


def main(port: str, process: str) -> None:
    """One of the processes: print the differences by case, as JSON."""
    jax.distributed.initialize(f"localhost:{port}", PROCESSES, int(process))
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("batch"))

    def spread(array):
        return jax.make_array_from_callback(array.shape, split, lambda index: array[index])

    functions = {name: lambda *args, loss=loss: value_and_gradient(loss, *args) for name, loss in LOSSES.items()}
    differences = {}
    for name, function in {**functions, "diagnose": diagnosis, "hard choice": hard_choice}.items():
        compiled = jax.jit(function)
        for shards, where in WHERE.items():
            batch = (LOGITS, LABELS, np.ones(len(LABELS), bool) if where is None else where)
            differences[f"{name}, {shards}"] = relative_difference(compiled(*map(spread, batch)), compiled(*batch))
    print(json.dumps(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
