"""The kit by kernels that are interpreted as for TPU: some thirty small programs, and a small network."""

import io
import json
from types import SimpleNamespace

import jax
import pytest
from rich.console import Console

from softbin.experiments.accelerator import checks, kit, networks
from softbin.experiments.accelerator.kit import Part, plan_parts
from softbin.experiments.accelerator.plan import FULL, SMALL
from softbin.experiments.datasets import packages
from softbin.experiments.runs import life
from softbin.experiments.runs.errors import UserError

PARTS = (
    "check_euclidean", "check_ways", "check_choices", "loss_128x10_bfloat16", "rows_16_bfloat16", "masks_2x64",
)  # fmt: skip
NETWORK = "network_random_images_hypersimplex"


def run(workdir, paper=False, interpret=True):
    """What it prints."""
    text = io.StringIO()
    kit.run(workdir, interpret, paper, Console(file=text, width=120))
    return text.getvalue().split()[::2]


def figures(workdir):
    return json.loads((workdir / "accelerator.json").read_text())


KERNELS = SMALL.kernels[:1]  # tests of kernels have the others


@pytest.fixture(autouse=True, scope="module")
def little_to_compile():
    """One kind of kernels, and for the paper's network one that is small: the run is as any."""

    def run(config, workdir):
        config.model, config.hidden, config.augment = "mlp", (8,), False
        return life.run(config, workdir)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(kit, "SMALL", SMALL._replace(kernels=KERNELS))
        context.setattr(networks, "life", SimpleNamespace(run=run))
        yield


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trial")
    return workdir, run(workdir)


def test_every_part_is_done_and_shown(trial):
    workdir, printed = trial
    found = figures(workdir)
    assert printed == list(found["parts"]) == [*PARTS, NETWORK]
    assert found["environment"]["versions"]["jax"] == jax.__version__
    assert found["interpret"]
    for name in PARTS:
        records = found["parts"][name]["result"]
        for kernels in KERNELS:
            assert any(kernels in record["implementation"] for record in records)
        for record in records:
            assert "error" not in record
            assert not record.get("above")
            assert record.get("microseconds", 1) > 0
    assert found["parts"]["check_euclidean"]["result"][1]["compared"] >= 30
    assert found["parts"][NETWORK]["result"]["milliseconds"] > 0
    page = (workdir / "accelerator.md").read_text()
    assert "A trial, not a measurement" in page
    assert "## What failed or is missing\n\nNothing.\n" in page
    assert "| random images | hypersimplex | 32 |" in page
    assert "Images are random, and only times mean something: None were looked for." in page


def test_only_what_is_missing_is_done_again(trial):
    workdir, _ = trial
    folder, before = workdir / "accelerator", figures(workdir)["parts"]
    (folder / f"{PARTS[3]}.json").unlink()
    (workdir / "accelerator.json").unlink()
    assert run(workdir) == [PARTS[3]]
    after = figures(workdir)["parts"]
    assert list(after) == list(before)
    assert [name for name in before if before[name] != after[name]] == [PARTS[3]]  # by its times


def test_a_folder_of_other_versions_is_refused(trial, monkeypatch):
    workdir, _ = trial
    monkeypatch.setattr(kit, "version", lambda name: "0.0")
    with pytest.raises(UserError, match=r"jax is .* there and '0.0' here.*: choose another --workdir"):
        run(workdir)


@pytest.fixture
def parts(monkeypatch):
    """Parts of the test's own."""
    own = {}
    monkeypatch.setattr(kit, "plan_parts", lambda *_: ((name, Part({}, run)) for name, run in own.items()))
    return own


def fail():
    raise RuntimeError("no\nlowering")


def interrupt():
    raise KeyboardInterrupt


def test_a_part_that_fails_is_recorded_and_the_next_are_done(parts, tmp_path):
    parts.update(first=fail, second=lambda: [])
    assert run(tmp_path) == ["first", "second"]
    assert figures(tmp_path)["parts"]["first"]["error"] == "RuntimeError: no lowering"
    assert "- first failed: RuntimeError: no lowering" in (tmp_path / "accelerator.md").read_text()
    assert run(tmp_path) == []


def test_a_device_that_no_longer_works_ends_the_run_and_the_next_goes_on(parts, tmp_path, monkeypatch):
    parts.update(first=fail, second=lambda: [])
    with monkeypatch.context() as context:
        context.setattr(kit.jnp, "ones", lambda n: fail())
        with pytest.raises(UserError, match=r"no longer works after .*first.json: give the command again"):
            run(tmp_path)
    assert "- second has not been done: the same command does it" in (tmp_path / "accelerator.md").read_text()
    assert run(tmp_path) == ["second"]


def test_a_part_that_is_interrupted_is_done_again(parts, tmp_path):
    parts.update(first=interrupt)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    parts.update(first=lambda: [])
    assert run(tmp_path) == ["first"]
    assert "result" in figures(tmp_path)["parts"]["first"]


def test_a_part_that_ends_the_process_each_time_is_given_up(parts, tmp_path, monkeypatch):
    parts.update(first=interrupt)
    monkeypatch.setattr("pathlib.Path.unlink", lambda path: None)  # as where the process ends at once
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert run(tmp_path) == ["first"]
    assert "the process ended in this part 3 times" in figures(tmp_path)["parts"]["first"]["error"]


def test_what_other_commands_did_in_the_folder_is_kept(parts, tmp_path):
    parts.update(network=lambda: [])
    run(tmp_path)
    parts.clear()
    parts.update(paper=lambda: [])
    run(tmp_path)
    assert list(figures(tmp_path)["parts"]) == ["paper", "network"]


def test_without_an_accelerator_it_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"there is no TPU or GPU, JAX finds cpu: .* try the kit with --interpret"):
        run(tmp_path, interpret=False)
    assert not list(tmp_path.iterdir())


def test_without_images_there_are_random_ones_but_not_for_the_paper(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.DATA_VARIABLE, str(tmp_path))
    names = [name for name, _ in plan_parts(FULL, tmp_path, False)]
    assert names[-2:] == [f"network_random_images_{loss}" for loss in FULL.trained]
    assert {"loss_16777216x1_bfloat16", "rows_8_float32", "rows_16384_bfloat16"} < set(names)
    with pytest.raises(UserError, match="--paper finds no images; Fashion-MNIST is not in"):
        list(plan_parts(FULL, tmp_path, True))
    assert len(list(plan_parts(SMALL, tmp_path, False))) == len(PARTS) + 1


def test_a_kernel_that_fails_leaves_the_other_checks():
    plan = SMALL._replace(kernels=("no_such_kernels",), most_entries=1)
    on_cpu, kernels = checks.hard_cases(plan, "euclidean")
    assert on_cpu["above"] == {}
    assert kernels["error"].startswith("ValueError: implementation must be None")
