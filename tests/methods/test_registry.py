"""Names to things, and the methods that are registered."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import tokcli.methods
import tokcli.registry
from tokcli.errors import MethodError, ModelError
from tokcli.methods import METHODS, Method, method_names
from tokcli.registry import Registry


def test_names_keep_the_order_of_registration() -> None:
    registry: Registry[int] = Registry("number", ModelError)
    registry.register("two", 2)
    registry.register("one", 1)
    assert registry.names() == ["two", "one"]
    assert registry.get("one") == 1
    assert registry.loaded() == {"two": 2, "one": 1}


def test_a_name_cannot_be_taken_twice() -> None:
    registry: Registry[int] = Registry("number", ModelError)
    registry.register("one", 1)
    with pytest.raises(ValueError, match="number 'one' is registered twice"):
        registry.register("one", 2)


def test_an_unknown_name_gives_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(MethodError) as error:
        METHODS.get("dtt")
    assert str(error.value) == (
        f"unknown method 'dtt'; `tokcli methods` lists all {len(method_names())}; did you mean 'dtd'?"
    )
    registry: Registry[int] = Registry("number", ModelError)
    registry.register("one", 1)
    registry.register("two", 2)
    with pytest.raises(ModelError, match=r"^unknown number 'tow'; known: one, two; did you mean 'two'\?$"):
        registry.get("tow")
    with pytest.raises(ModelError, match=r"^unknown number 'x'; known: none$"):
        Registry[int]("number", ModelError).get("x")


def entry_point(value: str) -> Any:
    return lambda group: [EntryPoint(name="theirs", value=value, group=group)]


def test_other_packages_are_imported_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokcli.registry, "entry_points", entry_point("math:pi"))
    registry: Registry[float] = Registry("number", ModelError, group="some.group")
    registry.register("mine", 1.0)
    assert registry.names() == ["mine", "theirs"]
    assert registry.loaded() == {"mine": 1.0}
    assert registry.get("theirs") == pytest.approx(3.14159, abs=1e-5)
    assert registry.names() == ["mine", "theirs"]


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokcli.registry, "entry_points", entry_point("no_such_package:thing"))
    registry: Registry[float] = Registry("number", ModelError, group="some.group")
    with pytest.raises(ModelError, match="'theirs' of package no_such_package:thing cannot be imported"):
        registry.get("theirs")


def test_what_another_package_offers_must_be_of_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokcli.registry, "entry_points", entry_point("math:pi"))
    registry: Registry[int] = Registry("number", ModelError, group="some.group", of=int)
    with pytest.raises(ModelError, match="'theirs' of package math:pi is a float, not a int"):
        registry.get("theirs")


def test_no_method_of_the_package_is_left_unregistered() -> None:
    modules = [
        importlib.import_module(f"tokcli.methods.{found.name}")
        for found in pkgutil.iter_modules(tokcli.methods.__path__)
    ]
    defined = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Method)}
    assert {method.name for method in defined.values()} == set(METHODS.loaded())
    assert len(defined) == len(METHODS.loaded())
