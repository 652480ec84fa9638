"""Values to settings, and a fault to one line that names the key, or the flag, and what is allowed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from tokcli.errors import RecipeError, nearest

_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_KINDS = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("string_type", "string_too_short"), "a text that is not empty"),
    **dict.fromkeys(("list_type", "too_short"), "a list that is not empty"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping"),
}


def no_pipe(output: str) -> str:
    """``output``, where that is no ``-``. Raises ``ValueError``."""
    if output == "-":
        raise ValueError("a cache, and all else that is written here, is a folder, not a stream; name one (./- is one)")
    return output


Folder = Annotated[str, Field(min_length=1), AfterValidator(no_pipe)]
"""What is written into."""


def check(model: type[BaseModel], values: dict[str, Any], where: str, *, flags: bool = False) -> Any:
    """Build ``model`` from ``values``; a fault becomes one ``RecipeError`` line that begins with ``where``.

    With ``flags`` it names the key as the command line does: ``--num-frames`` for ``sampling.num_frames``.
    """
    try:
        return model(**values)
    except ValidationError as error:
        # A key that is not known explains more than the one that is missing for it.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            hint = nearest(str(first["loc"][-1]), known)
            raise RecipeError(f"{where}: unknown key {key!r}{hint or '.'} Known keys: {', '.join(known)}") from None
        if flags and key:
            key = "--" + [str(part) for part in first["loc"] if isinstance(part, str)][-1].replace("_", "-")
        given = f", got {first['input']!r}" if key and not isinstance(first["input"], dict) else ""
        raise RecipeError(f"{where}: {_sentence(key, first)}{given}") from None


def _sentence(key: str, fault: Any) -> str:
    """What is allowed, in words: pydantic's own speak of inputs and their parsing."""
    kind, bounds = fault["type"], fault.get("ctx", {})
    if kind in _BOUNDS:
        (bound,) = (bounds[name] for name in ("gt", "ge", "lt", "le") if name in bounds)
        return f"{key} must be {_BOUNDS[kind]} {_number(bound)}"
    if kind in _KINDS:
        return f"{key} must be {_KINDS[kind]}"
    if kind == "literal_error":
        return f"{key} must be {bounds['expected']}"
    if kind == "missing":
        return f"{key} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _number(value: float) -> str:
    """Bytes as they are given: all bounds of a mebibyte and more are some."""
    return f"{value / (1 << 20):g} MiB" if value >= 1 << 20 else f"{value:g}"


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
    return sorted(model.model_fields)
