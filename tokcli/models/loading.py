"""Open one half of a checkpoint: the vision tower without the language model, or the other way round.

The half is a subclass of the checkpoint's own class whose ``__init__``, which runs on the meta device inside
``from_pretrained`` and so costs no memory, puts a stub in the place of the other half. Renaming of keys, sharding and
tied weights stay transformers' own work, and the other half's tensors are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from tokcli.errors import ModelError
from tokcli.models.base import FamilyAdapter
from tokcli.models.checkpoints import weight_files
from tokcli.models.quiet import quiet_transformers

Half = Literal["vision", "language"]
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


class NotLoaded(torch.nn.Module):
    """Stands in the place of a part that was not loaded."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{self.part} was not loaded: this is the other half of the model")


def load_config(folder: Path) -> Any:
    """The checkpoint's configuration as transformers parses it.

    Raises:
        ModelError: It is malformed.
    """
    from transformers import AutoConfig

    with quiet_transformers():
        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise ModelError(f"{folder}/config.json can't be used: {_first_line(error)}") from error


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        ModelError: Its files are missing or malformed.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # transformers would make up an empty one.
        raise ModelError(f"{folder} holds no tokenizer: {' or '.join(_TOKENIZER_FILES)} is needed")
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise ModelError(f"{folder}: the tokenizer can't be loaded: {_first_line(error)}") from error


def load_half(
    folder: Path,
    family: FamilyAdapter,
    half: Half,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attn: str | None = None,
) -> Any:
    """The checkpoint's model in evaluation mode with only ``half`` of its weights.

    Raises:
        ModelError: A weight of this half is missing or has another shape, or the files can't be read.
    """
    import transformers

    weight_files(folder)
    full = getattr(transformers, family.model_class)
    partial = _half_class(full, family.language_modules if half == "vision" else family.vision_modules, half)
    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    if attn is not None:
        options["attn_implementation"] = attn
    with quiet_transformers():
        try:
            model, report = partial.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                # Reported below by name; transformers' own exception only points at a report in its log.
                ignore_mismatched_sizes=True,
                **options,
            )
        except Exception as error:
            raise ModelError(f"{folder}: the {half} half can't be loaded: {_first_line(error)}") from error
    for what, names in (
        ("lacks", report["missing_keys"]),
        ("has another shape than config.json says for", [_name_of(entry) for entry in report["mismatched_keys"]]),
    ):
        if names:
            # Without this, transformers would go on with random values in their place.
            first, *others = sorted(names)
            more = f" and {len(others)} more" if others else ""
            raise ModelError(f"{folder}: the {half} half {what} {first}{more}; download the checkpoint again")
    return model.to(device).eval()


def _half_class(full: type[Any], dropped: Sequence[str], half: Half) -> type[Any]:
    keeps_head = half == "language"

    class Half(full):
        _keys_to_ignore_on_load_unexpected = (r".*",)
        _tied_weights_keys = full._tied_weights_keys if keeps_head else {}

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            for name in dropped:
                self.model._modules[name] = NotLoaded(name)
            if keeps_head:
                self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=False)
            else:
                self._modules["lm_head"] = NotLoaded("lm_head")
                self.all_tied_weights_keys = {}

        def get_input_embeddings(self) -> Any:
            return super().get_input_embeddings() if keeps_head else None

        def get_output_embeddings(self) -> Any:
            return super().get_output_embeddings() if keeps_head else None

    Half.__name__ = Half.__qualname__ = full.__name__
    # transformers renames old checkpoints' keys only for classes that look like its own. Without this line they would
    # all count as missing.
    Half.__module__ = full.__module__
    return Half


def _name_of(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(entry[0])


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
