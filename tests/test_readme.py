"""README's Python runs as it stands and gives what its text says; its picture is that of a notebook."""

import base64
import json
import re
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import softbin

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXT = README.replace("\n", " ")


@cache
def run(marker: str) -> dict:
    """What the snippet that holds the marker leaves, run by itself after the imports of the first."""
    first, *others = re.findall(r"```python\n(.*?)```", README, re.S)
    imports = "".join(re.findall(r"^import .+\n", first, re.M))
    (snippet,) = (snippet for snippet in (first, *others) if marker in snippet)
    names: dict = {}
    exec(imports + snippet, names)
    return names


def arrays(marker: str) -> dict:
    """Of what the snippet leaves the arrays, as NumPy's, but for keys."""
    left = {name: value for name, value in run(marker).items() if isinstance(value, jax.Array) and name != "keys"}
    return jax.tree.map(np.asarray, left)


def test_first_results_are_as_their_comments_say():
    names = run("scores = jnp.array")
    told = re.findall(r"^(softbin\..+)  # (.+\d.*)$", README[: README.index("\n| to |")], re.M)
    assert len(told) == 4
    for call, comment in told:
        numbers = [float(number) for number in re.findall(r"\d+\.\d*", comment)]
        np.testing.assert_allclose(np.ravel(eval(call, names)), numbers)


def test_picture_is_the_first_of_the_first_notebook():
    (path,) = re.findall(r"!\[.+\]\((.+)\)", README)
    cells = json.loads((ROOT / "notebooks" / "1_operator.ipynb").read_text())["cells"]
    pictures = (output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output)
    first = next(picture["image/png"] for picture in pictures if "image/png" in picture)
    assert (ROOT / path).read_bytes() == base64.b64decode(first)


def test_gates_are_soft_hard_and_of_the_chosen():
    names = arrays("softbin.routing")
    for gates, total in (("soft", 2), ("hard", 2), ("gates", 1)):
        np.testing.assert_allclose(names[gates].sum(-1), total, rtol=1e-5)
    np.testing.assert_array_equal(np.argsort(-names["hard"], stable=True)[:, :2], np.sort(names["experts"]))
    np.testing.assert_array_equal(np.take_along_axis(names["gates"], names["experts"], -1), names["weights"])


def test_as_many_rows_lack_a_gradient_as_the_text_says():
    logits, direction = np.asarray(jax.random.normal(jax.random.key(0), (2, 100_000, 8)))

    @partial(jax.jit, static_argnames="regularizer")
    def gradient(temperature, regularizer=softbin.euclidean):
        project = partial(softbin.soft_binary_argmax, k=2, temperature=temperature, regularizer=regularizer)
        return jax.vjp(project, logits)[1](direction)[0]

    def lacking(**keywords):
        return 100 * np.mean(np.all(np.asarray(gradient(**keywords)) == 0, -1))

    told = re.findall(r"([\d.]+)%[^%]*? at τ = (\d+(?:\.\d+)?)", TEXT)
    assert [temperature for _, temperature in told] == ["0.1", "1", "2"]
    for share, temperature in told:
        decimals = len(share.partition(".")[2])
        assert f"{lacking(temperature=float(temperature)):.{decimals}f}" == share
    assert lacking(temperature=0.1, regularizer=softbin.binary_entropy) == 0


def test_thresholds_are_worth_what_the_text_says():
    names = run("load_digits")
    logits, labels = (names[name][names["test"]] for name in ("logits", "labels"))
    decided = {"argmax": logits.argmax(-1), "predict": names["predictions"]}
    told = re.search(r"`argmax` is right in (\d+)% .*? `predict` in (\d+)%", TEXT)
    for share, predictions in zip(told.groups(), decided.values(), strict=True):
        np.testing.assert_allclose(100 * np.mean(predictions == labels), float(share), atol=2)


def test_loss_begins_and_ends_where_the_text_says():
    names = run("load_digits")
    images, labels = (names[name][names["train"]] for name in ("images", "labels"))
    for told, params in zip(re.search(r"falls from (\d+\.\d+) to (\d+\.\d+)", TEXT).groups(), (0.0, 1.0), strict=True):
        value = softbin.loss(images / 16 @ (params * names["params"]), labels, **names["keywords"])
        np.testing.assert_allclose(value, float(told), rtol=0.1)


def test_means_are_of_the_smallest_and_of_the_largest():
    names = arrays("bottom_k_mean")
    logits, labels = names["logits"], names["labels"]
    squares = np.sort(np.sum((logits / 5 - np.eye(10)[labels]) ** 2, -1) / 2)
    np.testing.assert_allclose(names["trimmed"], squares[: round(0.64 * len(squares))].mean(), rtol=1e-2)
    hardest = np.sort(-log_softmax(logits, -1)[np.arange(256), labels])[-25:]
    np.testing.assert_allclose(names["tail"], hardest.mean(), rtol=1e-5)


def test_loss_of_the_kept_is_that_of_the_smallest_errors():
    names = arrays("bottom_k_mean")
    logits, labels, kept = names["logits"], names["labels"], names["kept"]
    errors = np.asarray(softbin.per_example_loss(logits, labels, temperature=5.0))
    assert kept.sum() == round(0.64 * len(errors))
    assert errors[kept == 1].max() <= errors[kept == 0].min()
    alone = softbin.loss(logits[kept == 1], labels[kept == 1], temperature=5.0)
    np.testing.assert_allclose(names["selected"], alone, rtol=1e-5)


def test_a_budget_takes_as_many_as_it_says():
    names = arrays("precision_at_k")
    reviewed, positives = names["reviewed"], names["positives"]
    assert reviewed.sum() == 100
    precision = softbin.precision_at_k(names["scores"], positives, k=100)
    np.testing.assert_allclose(np.mean(positives[reviewed]), precision, rtol=1e-6)


def test_tokens_are_of_the_kept_and_greedy_where_the_temperature_is_0():
    names = arrays("softbin.sampling")
    logits, tokens = names["logits"], names["tokens"]
    assert tokens[0] == logits[0].argmax()
    assert np.all(names["log_probabilities"] <= 0)
    mass = np.sum(softmax(logits, -1), -1, where=names["nucleus"])
    assert np.all((mass >= 0.9 - 1e-5) & (mass < 0.91))
    np.testing.assert_allclose([names["low"], names["high"]], np.percentile(logits, [5.0, 95.0]), rtol=1e-5)
    assert names["slope"] > 0


def test_policy_of_the_text_saves_the_search():
    (name,) = re.findall(r'save_only_these_names\("(\w+)"\)', README)
    policy = jax.checkpoint_policies.save_only_these_names(name)
    logits, labels = np.zeros((100, 10), np.float32), np.arange(100) % 10

    def searches(**keywords):
        def loss(logits):
            return softbin.loss(logits, labels)

        wrapped = jax.checkpoint(loss, **keywords) if keywords else loss
        return str(jax.make_jaxpr(jax.grad(wrapped))(logits)).count("while[")

    assert searches(policy=policy) == searches() < searches(policy=None)


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", ["README.md", "softbin/experiments/results/README.md"])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", (ROOT / path).read_text()):
        file, _, anchor = target.partition("#")
        page = (ROOT / path).parent / file if file else ROOT / path
        assert page.exists()
        assert not anchor or anchor in anchors(page)
