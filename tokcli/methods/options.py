"""Options as data: checked on creation, frozen, and the same after a trip through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from tokcli.errors import MethodError, nearest

Model = TypeVar("Model", bound="Options")


class Options(BaseModel):
    """Base of every method's options. A subclass gives each field its official default and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VariantOptions(Options):
    """For methods whose authors' code has defects; the method's page says which."""

    variant: Literal["official", "fixed"] = Field(
        default="fixed", description="'official' repeats the authors' code, defects included; 'fixed' does not."
    )


class SeededOptions(Options):
    """For methods that draw random numbers."""

    seed: int = Field(default=0, ge=0, description="Seed, combined with the item's id.")


def parse_options(name: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    """Check ``values`` (text from a command line, or JSON) against ``model``.

    Raises :class:`MethodError` naming the option, the value and what is allowed.
    """
    fields = model.model_fields
    for key in values:
        if key not in fields:
            known = ", ".join(fields) or "it has none"
            raise MethodError(f"unknown option {key!r} of method {name!r}; options: {known}{nearest(key, fields)}")
    none = {key: None for key, value in values.items() if value == "none" and _may_be_none(fields[key])}
    try:
        return model.model_validate({**values, **none})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            reason = str(first["msg"]).removeprefix("Value error, ")
            raise MethodError(f"method {name!r}: {reason}") from None
        key = str(first["loc"][0])
        raise MethodError(
            f"method {name!r}: {key}={values.get(key)!r} is not allowed; {key} must be {allowed_values(model)[key]}"
        ) from None


def _may_be_none(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def allowed_values(model: type[Options]) -> dict[str, str]:
    """What each option may be, in words: ``{"keep": "a number above 0 and at most 1"}``."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema().get("properties", {})
    return {
        name: " or ".join(_in_words(part) for part in schema.get("anyOf", [schema]) if part.get("type") != "null")
        for name, schema in properties.items()
    }


_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
}
_BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}


def _in_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])
    words = _TYPES.get(schema.get("type", ""), str(schema.get("type", "any value")))
    bounds = " and ".join(f"{word} {schema[key]:g}" for key, word in _BOUNDS.items() if key in schema)
    return f"{words} {bounds}".strip()


def option_pages(model: type[Options]) -> list[dict[str, Any]]:
    """Name, default, allowed values and description of every option, for the method's page."""
    allowed = allowed_values(model)
    return [
        {"name": name, "default": field.get_default(), "allowed": allowed[name], "description": field.description or ""}
        for name, field in model.model_fields.items()
    ]
