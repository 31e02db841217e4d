import importlib
import inspect
import pkgutil
import pydoc

import jax.numpy as jnp
import jaxtyping
import pytest

import softbin
from softbin import adapters

MODULES = [
    "softbin",
    "softbin.budgets",
    "softbin.large_batch",
    "softbin.regularizers",
    "softbin.routing",
    "softbin.sampling",
    *(f"softbin.adapters.{module.name}" for module in pkgutil.iter_modules(adapters.__path__)),
]
MOST_CHARACTERS = 500


def public(module):
    """The functions and classes that a module has for its users, by name."""
    try:
        members = vars(importlib.import_module(module))
    except ImportError as error:
        pytest.skip(str(error))
    own = [name for name, value in members.items() if name[0] != "_" and getattr(value, "__module__", "") == module]
    named = {name: members[name] for name in members.get("__all__", own)}
    return {name: value for name, value in named.items() if inspect.isroutine(value) or inspect.isclass(value)}


def signatures(name, value):
    """That of a function, or of a class and of its methods, without what Flax adds to each constructor."""
    found = {name: inspect.signature(value)}
    if inspect.isclass(value):
        methods = {each: method for each, method in vars(value).items() if inspect.isfunction(method)}
        found |= {f"{name}.{each}": inspect.signature(method) for each, method in methods.items() if each[0] != "_"}
    of_flax = "parent", "name"
    return {
        name: signature.replace(parameters=[p for p in signature.parameters.values() if p.name not in of_flax])
        for name, signature in found.items()
    }


@pytest.mark.parametrize("module", MODULES)
def test_signatures_can_be_read(module):
    for name, value in public(module).items():
        for called, signature in signatures(name, value).items():
            text = str(signature)
            assert "jaxtyping." not in text, called
            assert "Union[" not in text, called
            assert "ForwardRef(" not in text, called
            assert "*args: 'Any', **kwargs: 'Any'" not in text, called
            assert len(text) <= MOST_CHARACTERS, called


def test_the_first_sentence_of_help_follows_a_signature():
    text = pydoc.plain(pydoc.render_doc(softbin.loss))
    assert text.index(inspect.getdoc(softbin.loss)[:40]) <= MOST_CHARACTERS + 100  # from 3.13 on, a line an argument


@pytest.mark.parametrize("module", MODULES)
def test_every_field_of_a_result_is_described(module):
    for name, value in public(module).items():
        if hasattr(value, "_fields"):
            assert "Alias for field" not in pydoc.plain(pydoc.render_doc(value)), name
            assert set(value.__annotations__) == set(value._fields)


@pytest.mark.parametrize("module", MODULES)
def test_all_that_is_public_says_what_it_is_for(module):
    for name, value in public(module).items():
        assert inspect.getdoc(value), name


def test_the_first_page_names_all_that_is_public_by_its_use():
    assert softbin.__all__[0] == "soft_binary_argmax"
    for name in softbin.__all__:
        assert f"`{name}`" in softbin.__doc__ or f"`softbin.{name}`" in softbin.__doc__, name


def test_shapes_are_checked_in_the_tests():
    logits, bias = jnp.zeros((4, 3)), jnp.zeros(2)
    with pytest.raises(jaxtyping.TypeCheckError, match="experts"):
        softbin.routing.gates(logits, bias, 1)
