"""The selectors of this package. A new one adds its line here."""

from __future__ import annotations

from tokcli.methods.guided import SELECTORS
from tokcli.methods.text_cosine import text_cosine

for _selector in (text_cosine,):
    SELECTORS.register(_selector.name, _selector)
