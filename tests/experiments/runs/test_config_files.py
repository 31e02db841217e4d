from pathlib import Path

import pytest

from softbin.experiments.runs import config_files
from softbin.experiments.runs.errors import UserError

REPOSITORY = Path(__file__).parents[3]
TIDY = "def get_config():\n    import ml_collections\n    return ml_collections.ConfigDict({'seed': 7})\n"


def test_every_config_of_the_repository_has_a_name():
    folder = REPOSITORY / "configs"
    assert folder == config_files.FOLDER
    assert {"digits", "noise", "paper/cifar10"} <= set(config_files.names())
    for name in config_files.names():
        assert config_files.load(name, []).to_json() == config_files.load(str(folder / f"{name}.py"), []).to_json()


def test_a_folder_of_the_same_name_does_not_hide_a_packaged_config(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert config_files.load("digits", []).dataset == "digits"


def test_a_file_of_ones_own_is_a_config(tmp_path):
    (tmp_path / "own.py").write_text(TIDY)
    assert config_files.load(str(tmp_path / "own.py"), ["--config.seed=8"]).seed == 8


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (["--config.loss=mse"], "loss", "mse"),
        (["--config.loss", "mse"], "loss", "mse"),
        (["--config.epochs=3", "--config.epochs=4"], "epochs", 4),
        (["--config.learning_rate", "-1e-3"], "learning_rate", -1e-3),
        (["--config.hidden=(16, 8)"], "hidden", (16, 8)),
        (["--config.augment"], "augment", True),
        (["--noconfig.augment"], "augment", False),
    ],
)
def test_a_field_is_changed_and_no_other(changes, field, value):
    before, after = config_files.load("digits", []), config_files.load("digits", changes)
    assert after[field] == value
    assert {**after.to_dict(), field: None} == {**before.to_dict(), field: None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.los=mse", r"the config has no field los \(did you mean loss\?\): it has augment, batch_size"),
        ("--noconfig.argument", r"the config has no field argument \(did you mean augment\?\): it has"),
        ("--config.zzz=1", "the config has no field zzz: it has augment, batch_size"),
        ("--config.loss.name=mse", "the config has no such field"),
        ("--config.epochs.x=3", r"the config has no such field \(Attribute .* epochs.x\)"),
        ("--config.hidden[7]=3", r"the config has no such field \(tuple index out of range\)"),
        (
            "--config.epochs=many",
            r"does not take this value \(flag --config.epochs=many: invalid .*\): give one of the",
        ),
        ("--config.loss", r"the config does not take this value \(Missing value for flag --config.loss\)"),
        ("--workdr=x", "unexpected arguments --workdr=x: settings are given as --config.field=value, and --help lists"),
        ("more", "unexpected arguments more: settings are given as --config.field=value, and --help lists the flags"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        config_files.load("digits", [change])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "learning rate 0.1\n",
            r"fails \(SyntaxError: invalid syntax \(own.py, line 1\)\): mend it; .*digits.py is an",
        ),
        (
            "\n\nthis\n",
            r"fails in line 3 \(NameError: name 'this' is not defined\): mend it; .*digits.py is an example",
        ),
        ("import no_such_module\n", r"fails in line 1 \(ModuleNotFoundError: No module named 'no_such_module'\)"),
        (
            "def get_config():\n    raise KeyError('x')\n",
            r"fails in line 2 \(KeyError: 'x'\): mend it; .*digits.py is an",
        ),
        (
            "learning_rate: 0.1\n",
            r"has no get_config\(\) that returns a ConfigDict: add one; .*digits.py is an example",
        ),
        ("def get_config():\n    pass\n", r"has no get_config\(\) that returns a ConfigDict: add one"),
    ],
)
def test_a_file_that_is_no_config_is_refused(content, message, tmp_path):
    (tmp_path / "own.py").write_text(content)
    with pytest.raises(UserError, match=rf"the config {tmp_path / 'own.py'} {message}") as refused:
        config_files.load(str(tmp_path / "own.py"), [])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("digit", "there is no config digit: "),
        ("configs/no.py", "there is no config configs/no.py: "),
        ("", " a folder: "),
    ],
)
def test_what_is_no_file_is_refused_with_the_names_that_there_are(config, message):
    with pytest.raises(UserError, match=f"{message}give the path .*, or one of the names .*, digits, .*paper/cifar10"):
        config_files.load(config, [])
