"""The four commands as a user meets them: their help, their mistakes, and what they say in the end."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from softbin.experiments import bench, commands, kinds, report, sweep, train
from softbin.experiments.runs import config_files

pytestmark = pytest.mark.usefixtures("sketched")

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {"train": train, "sweep": sweep, "report": report, "bench": bench}
TINY = ["--config.epochs=1", "--config.hidden=(8,)", "--config.train_examples=256"]
SWEEP = """
import ml_collections
from softbin.experiments.configs.digits import get_config as run
def get_config():
    grid = {"block": {"loss": ("cross_entropy", "poly", "mse")}}
    return ml_collections.ConfigDict({"run": run(), "grid": grid})
"""

OWN = """
from softbin.experiments.configs.digits import get_config as digits
def get_config():
    config = digits()
    config.seed = 7  # chosen by dice
    return config
"""


@pytest.fixture
def command(capsys):
    """Run a command; its exit status, standard output and standard error."""

    def run(name, *arguments):
        status = 0
        try:
            COMMANDS[name].main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def sweep_config(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return f"--config={path}"


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "-h"])
@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("train", ["config", "workdir", "coordinator_address", "num_processes", "process_id"]),
        ("sweep", ["config", "workdir"]),
        ("report", ["workdir", "results", "reference"]),
        ("bench", ["workdir", "quick", "accelerator", "interpret", "paper"]),
    ],
)
def test_help_describes_every_flag_and_shows_an_example(name, described, flag, command):
    status, output, errors = command(name, flag)
    assert (status, errors) == (0, "")
    assert re.findall(r"^  --(\w+) (?:[A-Z_]+)?\s+\w", output, re.M) == described
    assert ("--config.FIELD=VALUE changes" in " ".join(output.split())) == ("config" in described)
    assert re.search(rf"^example:\n  softbin-{name} --\w+=\S+", output, re.M)


@pytest.mark.parametrize(
    ("name", "arguments", "lines"),
    [
        ("train", [], ["fields of the config digits:", r"  --config.model=mlp +or cnn, the paper's"]),
        (
            "sweep",
            [],
            ["fields of the config large_batch_cpu:", "  --config.run.epochs=80 +passes over the training set"],
        ),
        (
            "train",
            ["--config=boosting_breast_cancer"],
            ["fields of the config boosting_breast_cancer:", "  --config.booster=lightgbm +or xgboost"],
        ),
        ("train", ["--config={}/own.py"], ["fields of the config .*own.py:", "  --config.seed=7 +chosen by dice"]),
    ],
)
def test_help_describes_every_field_of_the_config(name, arguments, lines, command, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    status, output, errors = command(name, "--help", *(argument.format(tmp_path) for argument in arguments))
    assert (status, errors) == (0, "")
    for line in lines:
        assert re.search(rf"^{line}$", output, re.M)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_the_example_of_each_kind_has_its_fields_and_says_what_they_mean(kind):
    assert set(config_files.load(kind.example, [])) == set(kind.fields)
    *_, described = config_files.describe(kind.example).partition("\n")
    lines = described.splitlines()
    assert len(lines) == len(kind.fields)
    assert all(re.match(r"  --config\.\w+=(\S+|'.*')  +\w", line) for line in lines)


def test_help_and_mistakes_load_jax_and_nothing_heavier():
    calls = [
        *((name, ["--help"]) for name in COMMANDS),
        *((name, []) for name in COMMANDS),
        ("train", ["--workdir=none", "--config=digit"]),
        ("train", ["--workdir=none", "--config=digits", "--config.los=mse"]),
        ("train", ["--workdir=none", "--config=digits", "--config.epochs=0"]),
        ("train", ["--workdir=none", "--config=noise"]),
        ("sweep", ["--workdir=none", "--config=digits"]),
        ("report", ["--workdir=none"]),
        ("report", ["--workdir=none", "--results=papers"]),
        ("bench", ["--workdir=none", "--paper"]),
    ]
    code = f"""
import sys
from importlib import import_module
for name, arguments in {calls}:
    try:
        import_module(f"softbin.experiments.{{name}}").main(arguments)
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
print({{"flax", "pandas", "matplotlib", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert [line for line in done.stderr.splitlines() if line.isdigit()] == ["0"] * 4 + ["2"] * (len(calls) - 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", [], "the following arguments are required: --config, --workdir: see softbin-train --help"),
        ("train", ["--config=digits"], "the following arguments are required: --workdir: see softbin-train --help"),
        (
            "train",
            ["{in}", "--config=digit"],
            "there is no config digit: give the path of a Python file with get_config()",
        ),
        ("train", ["{in}", "--config={}"], "the config {} is a folder: give the path"),
        ("train", ["{in}", "--config={}/prose.py"], "the config {}/prose.py fails"),
        (
            "train",
            ["{in}", "--config=digits", "--config.los=mse"],
            "the config has no field los (did you mean loss?): it has",
        ),
        (
            "train",
            ["{in}", "--config=digits", "--config.hidden=0"],
            "hidden must be widths of at least 1, such as (128,",
        ),
        ("train", ["{in}", "--config=digits", "--config.loss=poly"], "unknown loss 'poly': choose one of"),
        (
            "train",
            ["{in}", "--config=digits", "more"],
            "unexpected arguments more: settings are given as --config.field=",
        ),
        (
            "train",
            ["{in}", "--config=digits", "--coordinator_address=localhost:1234", "--num_processes=2"],
            "--coordinator_address=HOST:PORT goes with --num_processes and --process_id: give them too",
        ),
        ("train", ["{in}", "--config=digits", "--process_id=1"], "--num_processes and --process_id go with --coord"),
        ("train", ["{in}", "--config=digits", "--process_id=a"], "argument --process_id: invalid int value: 'a': see "),
        (
            "train",
            ["{in}", "--config=large_batch_cpu"],
            "the config is a sweep, with a run and a grid: give it to softbin-s",
        ),
        (
            "sweep",
            ["{in}", "--config=digits"],
            "the config is not a sweep, with a run and a grid: give it to softbin-train",
        ),
        ("report", ["{in}"], "{}/out/runs has no finished run: give the --workdir of a softbin-sweep"),
        (
            "report",
            ["{in}", "--results=papers"],
            "unknown results 'papers': choose paper, ",
        ),
        (
            "report",
            ["{in}", "--results=paper", "--reference=adam"],
            "no run is of the reference 'adam': choose one of 'cross_entropy', 'hinge', 'hypersimplex (k = n/2",
        ),
        ("report", ["{in}", "more"], "unrecognized arguments: more: see softbin-report --help"),
        ("bench", ["{in}", "--quik"], "unrecognized arguments: --quik: see softbin-bench --help"),
        ("bench", ["{in}", "--interpret"], "--interpret goes with --accelerator: give that too"),
        ("bench", ["{in}", "--paper"], "--paper goes with --accelerator: give that too"),
        ("bench", ["{in}", "--accelerator", "--quick"], "--quick does not go with --accelerator: leave it out, or try"),
        ("bench", ["{in}", "--accelerator", "--interpret", "--paper"], "--paper trains for hours where kernels are in"),
        ("bench", ["{in}", "--accelerator"], "there is no TPU or GPU, JAX finds cpu: install softbin[cuda13] or soft"),
        (
            "bench",
            ["--workdir={}/prose.py"],
            "cannot make the folder {}/prose.py (File exists): choose another --workdir",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_line_and_nothing_is_written(name, arguments, message, command, tmp_path):
    (tmp_path / "prose.py").write_text("not a config\n")
    fill = {"in": f"--workdir={tmp_path / 'out'}"}
    status, output, errors = command(name, *(argument.format(tmp_path, **fill) for argument in arguments))
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {message.format(tmp_path)}")
    assert len(errors.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prose.py"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config=digits", "--config.loss=centred_scaled_mse", *TINY],
            r"digits, centred_scaled_mse: test accuracy 0\.\d{4}, with thresholds 0\.\d{4}",
        ),
        (
            [
                "--config=boosting_breast_cancer",
                "--config.booster=xgboost",
                "--config.loss=logistic",
                "--config.rounds=6",
                "--config.fixed_rounds=3",
            ],
            r"breast_cancer, xgboost, logistic: test AUC 0\.9\d{3}, error by thresholds 0\.\d{4} after 6 rounds",
        ),
    ],
)
def test_training_says_what_came_of_it_and_next_time_that_it_was_finished_before(
    arguments, sentence, command, tmp_path
):
    results = f"; results in {re.escape(str(tmp_path))}"
    status, first, _ = command("train", f"--workdir={tmp_path}", *arguments)
    assert status == 0
    assert re.fullmatch(sentence + results + "\n", first)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"{summary.get('last_test_accuracy', summary.get('best_test_auc')):.4f}" in first
    status, second, errors = command("train", f"--workdir={tmp_path}", *arguments)
    assert (status, errors) == (0, "")
    assert second == first.replace("; results", "; the run was finished before; results")


def test_a_sweep_lists_what_failed_and_says_next_time_how_many_were_finished(sweep_config, command, tmp_path):
    tiny = [change.replace("config.", "config.run.") for change in TINY]
    arguments = [sweep_config, f"--workdir={tmp_path / 'out'}", *tiny]
    status, output, errors = command("sweep", *arguments)
    assert status == 1
    assert "failed: poly: UserError: unknown loss 'poly'" in errors
    assert output == f"2 of 3 runs are finished; results in {tmp_path / 'out'}\n"
    assert "sweep" in errors  # the bars
    assert "cross_entropy" in errors
    status, output, _ = command("sweep", *arguments)
    assert status == 1
    assert output == f"2 of 3 runs are finished, 2 of which were finished before; results in {tmp_path / 'out'}\n"


def test_a_report_of_the_papers_runs(command, tmp_path):
    status, output, _ = command("report", "--results=paper", f"--workdir={tmp_path}")
    assert status == 0
    assert output.endswith(f"280 runs; results in {tmp_path / 'report.md'}\n")
    assert "Against cross_entropy, a loss with a projection: significant in 9 of 14 tests" in output
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 281


def test_without_the_extra_every_command_says_what_to_install():
    code = f"""
import sys
sys.modules.update(dict.fromkeys({commands.PACKAGES}))  # whose import fails now
from softbin.experiments import commands
for command in (commands.train, commands.sweep, commands.report, commands.bench):
    try:
        command()
    except SystemExit as stop:
        print(stop.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * 4
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    remedy = r'install softbin with its extra "train", in a clone by pip install "\.\[train\]"'
    for line, name in zip(lines, COMMANDS, strict=True):
        assert re.fullmatch(f"error: softbin-{name} needs \\w+: {remedy}", line)


def test_another_missing_module_is_a_fault_and_shows(monkeypatch):
    monkeypatch.setitem(sys.modules, "softbin.experiments.train", None)
    with pytest.raises(ModuleNotFoundError, match=r"softbin\.experiments\.train"):
        commands.train()


def test_the_packages_that_commands_may_lack_are_those_of_the_extra():
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    expected = {re.match(r"[\w-]+", requirement)[0] for requirement in extra}
    owners = packages_distributions()
    assert len(commands.PACKAGES) == len(expected)
    assert all(expected.intersection(owners[package]) for package in commands.PACKAGES)


def test_the_console_scripts_are_the_commands():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {f"softbin-{name}": f"softbin.experiments.commands:{name}" for name in COMMANDS}
    assert all(getattr(commands, name).args == (name,) for name in COMMANDS)
