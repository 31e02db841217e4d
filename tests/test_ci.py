"""The workflow of pushes and pull requests runs what `.ci/run` runs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ROOT / ".ci" / "run"
PARTS = re.search(r"^parts=\((.*)\)$", RUN.read_text(), re.M)[1].split()


def test_every_part_is_described_and_run_by_a_job():
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    lists = re.findall(r"parts: (?:\[(.*)\]|(\w+))", workflow)
    named = re.findall(r"\w+", " ".join("".join(each) for each in lists)) + re.findall(r"\.ci/run (\w+)", workflow)
    contributing = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    assert set(named) == set(PARTS) == set(re.findall(r"^\| `(\w+)` \|", contributing, re.M))


def test_pythons_of_the_workflow_are_those_of_the_package():
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    workflow = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    assert re.findall(r'python: "(.*)", parts: newest', workflow) == classified


@pytest.mark.parametrize("part", ["nonsense", "tests"])
def test_a_part_that_there_is_not_is_an_error(part):
    result = subprocess.run(["bash", RUN, part], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f"There is no part {part}, only {' '.join(PARTS)}.\n"
    assert not result.stdout
