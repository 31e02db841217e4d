"""The Python of the README runs from top to bottom and gives what its text says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softbin
from tests.libraries import lightgbm, needs_lightgbm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def readme():
    """What the snippets leave."""
    names = {}
    for snippet in SNIPPETS:
        if lightgbm or "import lightgbm" not in snippet:
            exec(snippet, names)
    return names


def accuracy(predictions, labels):
    return 100 * np.mean(predictions == labels)


def test_picture_shows_the_operator():
    picture = re.search(r"```text\n(.*?)```", README, re.S)[1]
    temperatures = [float(temperature) for temperature in re.findall(r"τ = ([\d.]+)", picture)]
    rows = re.findall(r"^score ([\d.]+) +(.*)$", picture, re.M)
    scores = jnp.array([float(score) for score, _ in rows])
    cells = [re.findall(r"([\d.]+)(?: (█+))?", row) for _, row in rows]
    chosen = np.array([[float(number) for number, _ in row] for row in cells])
    expected = jnp.stack([softbin.soft_binary_argmax(scores, 2, temperature) for temperature in temperatures], -1)
    np.testing.assert_allclose(chosen, expected, atol=0.01)
    np.testing.assert_allclose([[len(bar) for _, bar in row] for row in cells], 10 * expected, atol=0.5)


def test_first_results_are_as_their_comments_say(readme):
    for call, comment in re.findall(r"^(softbin\..+)  # (.+)$", README, re.M):
        told = [float(number) for number in re.findall(r"\d+\.\d*", comment)]
        np.testing.assert_allclose(np.ravel(eval(call, readme)), told)


def test_masks_have_k_entries_and_the_hard_one_a_soft_gradient(readme):
    for mask in ("soft", "smooth", "hard", "routed"):
        np.testing.assert_allclose(readme[mask].sum(-1), 2, rtol=1e-5)
    np.testing.assert_allclose(readme["routed"], readme["hard"], atol=1e-6)


def test_as_many_rows_lack_a_gradient_as_the_text_says():
    logits, direction = jax.random.normal(jax.random.key(0), (2, 100_000, 8))

    def lacking(**keywords):
        _, pull_back = jax.vjp(lambda logits: softbin.soft_binary_argmax(logits, k=2, **keywords), logits)
        return 100 * jnp.mean(jnp.all(pull_back(direction)[0] == 0, -1))

    told = re.findall(r"([\d.]+)%[^%]*? at τ = (\d+(?:\.\d+)?)", README.replace("\n", " "))
    assert [temperature for _, temperature in told] == ["0.1", "1", "2"]
    for share, temperature in told:
        decimals = len(share.partition(".")[2])
        assert f"{lacking(temperature=float(temperature)):.{decimals}f}" == share
    assert lacking(temperature=0.1, regularizer=softbin.binary_entropy) == 0


def test_thresholds_are_worth_what_the_text_says(readme):
    argmax, predict = re.search(r"(\d+)% of the test images, `predict` in (\d+)%", README.replace("\n", " ")).groups()
    undecided = jnp.argmax(readme["test_images"] @ readme["params"], -1)
    np.testing.assert_allclose(accuracy(undecided, readme["test_labels"]), float(argmax), atol=2)
    np.testing.assert_allclose(accuracy(readme["predictions"], readme["test_labels"]), float(predict), atol=2)


def test_means_are_of_the_smallest_and_of_the_largest(readme):
    squares, hardest = np.sort(readme["squares"]), np.sort(readme["hardest"])
    np.testing.assert_allclose(readme["trimmed"], squares[: round(0.64 * len(squares))].mean(), rtol=1e-2)
    np.testing.assert_allclose(readme["tail"], hardest[-len(hardest) // 2 :].mean(), rtol=1e-2)


def test_loss_of_the_kept_is_that_of_the_smallest_errors(readme):
    errors, kept, size = readme["errors"], readme["kept"], round(0.64 * len(readme["errors"]))
    assert kept.sum() == size
    assert errors[kept == 1].max() <= errors[kept == 0].min()
    keywords = {"temperature": 5.0}
    np.testing.assert_allclose(errors.mean(), softbin.loss(readme["logits"], readme["labels"], **keywords), rtol=1e-5)
    alone = softbin.loss(readme["logits"][kept == 1], readme["labels"][kept == 1], **keywords)
    np.testing.assert_allclose(readme["selected"], alone, rtol=1e-5)


def test_what_is_kept_is_blind_to_what_the_loss_is_blind_to(readme):
    constants = 8.0 * jax.random.normal(jax.random.key(0), (10,))
    names = {**readme, "logits": readme["logits"] + constants}
    exec(next(snippet for snippet in SNIPPETS if "per_example_loss" in snippet), names)
    np.testing.assert_allclose(names["selected"], readme["selected"], rtol=1e-4)
    assert np.mean(names["kept"] != readme["kept"]) < 0.005  # all but ties


def test_policy_of_the_text_saves_the_search(readme):
    (name,) = re.findall(r'save_only_these_names\("(\w+)"\)', README)
    policy = jax.checkpoint_policies.save_only_these_names(name)

    def searches(**keywords):
        def loss(logits):
            return softbin.loss(logits, readme["labels"])

        wrapped = jax.checkpoint(loss, **keywords) if keywords else loss
        return str(jax.make_jaxpr(jax.grad(wrapped))(readme["logits"])).count("while[")

    assert searches(policy=policy) == searches() < searches(policy=None)


def test_loss_of_a_hard_choice_is_its_precision(readme):
    nines, capacity = readme["nines"], readme["capacity"]
    scores = 1e6 * jnp.asarray(readme["logits"][:, 9])
    precision = softbin.precision_at_k(scores, nines, k=capacity)
    n, positives = len(nines), nines.sum()
    expected = (capacity + positives) / (2 * n) - capacity * precision / n
    np.testing.assert_allclose(softbin.loss(scores, nines, budget=capacity), expected, rtol=1e-5)


def test_flax_classifier_learns_and_decides(readme):
    undecided = readme["classifier"].layers[0](readme["test_images"]).argmax(-1)
    assert accuracy(readme["decided"], readme["test_labels"]) > 90
    assert accuracy(undecided, readme["test_labels"]) < accuracy(readme["decided"], readme["test_labels"])


def test_optax_projection_gives_what_its_comment_says(readme):
    told = re.search(r"apply_updates.*# \[(.*)\]", README)[1]
    np.testing.assert_allclose(readme["choice"], [float(number) for number in told.split()], atol=1e-6)


@needs_lightgbm
def test_boosting_decides_well(readme):
    assert accuracy(readme["found_nines"], readme["test_labels"] == 9) > 95


def test_microbatches_give_the_gradient_of_the_whole(readme):
    def whole(params):
        return softbin.loss(readme["images"] @ params, readme["labels"])

    value, gradient = jax.value_and_grad(whole)(readme["params"])
    np.testing.assert_allclose(readme["value"], value, rtol=1e-5)
    np.testing.assert_allclose(readme["exact"], gradient, atol=1e-6)


@pytest.mark.parametrize("path", ["README.md", "softbin/experiments/results/README.md"])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", (ROOT / path).read_text()):
        file, _, anchor = target.partition("#")
        page = (ROOT / path).parent / file if file else ROOT / path
        headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        ]
