"""Checkpoints that cannot be trusted are named and set aside, and the newest whole one is used."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.runs.checkpoints import Checkpoints


def state(epoch):
    return {"weights": jnp.full((8, 3), epoch, jnp.float32), "count": jnp.int32(epoch)}


@pytest.fixture
def folder(tmp_path):
    """With checkpoints of the epochs 4 and 6; that of 2 is gone."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for epoch in (2, 4, 6):
        checkpoints.save(epoch, state(epoch))
    return tmp_path / "checkpoints"


def restore(folder):
    epoch, found = Checkpoints(folder).restore(state(0))
    for name, expected in state(epoch).items():
        np.testing.assert_array_equal(found[name], expected)
    return epoch


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_is_restored_in_silence(folder, capfd):
    assert restore(folder) == 6
    assert capfd.readouterr().err == ""
    assert not (folder / "2").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_bit, " does not match its checksum"),
        (truncate, " does not match its checksum"),
        (Path.unlink, ": No such file or directory"),
    ],
)
def test_whichever_file_is_damaged_the_checkpoint_before_it_is_restored(damage, reason, folder, capfd):
    whole = [path for path in sorted((folder / "6").rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(whole) > 5
    for path in whole:
        content = path.read_bytes()
        damage(path)
        assert restore(folder) == 4
        errors = capfd.readouterr().err
        assert errors.startswith(f"checkpoint {folder / '6'} is damaged (")
        if path.name != "crc32.json":
            assert f"({path.relative_to(folder / '6')}{reason})" in errors
        assert errors.endswith("), moved to damaged-6: training goes on from epoch 4\n")
        assert len(errors.splitlines()) == 1
        (folder / "damaged-6").rename(folder / "6")
        path.write_bytes(content)
    assert restore(folder) == 6


def test_a_checkpoint_without_checksums_was_cut_off_and_does_not_count(folder, capfd):
    (folder / "6" / "crc32.json").unlink()
    assert restore(folder) == 4
    assert "(crc32.json: No such file or directory)" in capfd.readouterr().err


def test_where_all_are_damaged_training_starts_anew(folder, capfd):
    for epoch in ("4", "6"):
        truncate(folder / epoch / "crc32.json")
    assert restore(folder) == 0
    errors = capfd.readouterr().err.splitlines()
    assert [line.split(" is damaged ")[0] for line in errors] == [f"checkpoint {folder / epoch}" for epoch in "64"]
    assert all(line.endswith("training goes on from epoch 0") for line in errors)
    Checkpoints(folder).save(2, state(2))
    assert restore(folder) == 2
