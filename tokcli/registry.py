"""Names to things: the lookup behind ``--method`` and ``--model``."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from tokcli.errors import UsageError, nearest

T = TypeVar("T")
MOST_LISTED = 20
"""More names than this do not help in a message; a command of the kind's name lists them."""


class Registry(Generic[T]):
    """Named things of one kind: those of this package, and those of others by entry point.

    ``kind`` is the word used in messages ("method"), ``error`` the class raised, ``group`` the entry point group that
    other packages declare, ``of`` what such an entry point must be an instance of. Those packages are imported only
    when one of their names is asked for.
    """

    def __init__(self, kind: str, error: type[UsageError], group: str | None = None, of: type | None = None) -> None:
        self.kind = kind
        self._error = error
        self._of = of
        self._group = group
        self._loaded: dict[str, T] = {}

    def register(self, name: str, value: T) -> None:
        """Add ``value``; raise ``ValueError`` for a name that is taken."""
        if name in self._loaded:
            raise ValueError(f"the {self.kind} {name!r} is registered twice")
        self._loaded[name] = value

    def names(self) -> list[str]:
        """All names, this package's first in their order of registration; imports nothing."""
        return [*self._loaded, *sorted(self._entry_points().keys() - self._loaded.keys())]

    def loaded(self) -> dict[str, T]:
        """What is registered so far, without importing any other package."""
        return dict(self._loaded)

    def get(self, name: str) -> T:
        """Return what ``name`` stands for; raise the registry's error with the known names and the nearest one."""
        if name not in self._loaded:
            entry = self._entry_points().get(name)
            if entry is None:
                known = self.names()
                listed = (
                    f"`tokcli {self.kind}s` lists all {len(known)}"
                    if len(known) > MOST_LISTED
                    else f"known: {', '.join(known) or 'none'}"
                )
                raise self._error(f"unknown {self.kind} {name!r}; {listed}{nearest(name, known)}")
            self._loaded[name] = self._load(entry)
        return self._loaded[name]

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self._group)} if self._group else {}

    def _load(self, entry: EntryPoint) -> T:
        package = entry.dist.name if entry.dist else entry.value
        try:
            loaded: T = entry.load()
        except Exception as error:
            raise self._error(
                f"the {self.kind} {entry.name!r} of package {package} cannot be imported "
                f"({type(error).__name__}: {error}); repair or uninstall that package"
            ) from error
        if self._of is not None and not isinstance(loaded, self._of):
            raise self._error(
                f"the {self.kind} {entry.name!r} of package {package} is a {type(loaded).__name__}, not a "
                f"{self._of.__name__}; repair or uninstall that package"
            )
        return loaded
