"""Taking a folder into use as a cache: make it, resume it, replace it, or leave it alone."""

from __future__ import annotations

from tokcli.cache.atomic import TEMPORARY_PREFIX, remove_temporaries, sync_folder, writing
from tokcli.cache.faults import fault_point
from tokcli.cache.layout import LOCK, MANIFEST, SUCCESS, TABLES, list_shards
from tokcli.cache.manifest import Manifest, read_manifest
from tokcli.cache.part import Part
from tokcli.errors import CacheConflictError, UsageError
from tokcli.storage import Location


def make_folder(cache: Location) -> None:
    """Create the cache's folder where there is none. Raises ``UsageError`` for a folder that holds something else."""
    # Looked at twice: a writer of another part may make it between the first look and the second.
    if not cache.is_dir() and cache.exists() and not cache.is_dir():
        raise UsageError(f"{cache} is a file; name a folder for the cache")
    if cache.is_dir() and not (cache / MANIFEST).exists():
        for entry in cache.iterdir():
            # What a writer leaves that was killed before its manifest was written.
            empty_table = entry.name in TABLES and entry.is_dir() and not any(entry.iterdir())
            own = entry.name.startswith((LOCK, TEMPORARY_PREFIX)) or empty_table
            if not own and not (cache / MANIFEST).exists():  # another part's writer may just have begun
                raise UsageError(
                    f"{cache} is not a token cache and holds other files ({entry.name}); name a new or empty folder"
                )
    with writing(cache.parent):
        cache.mkdir(parents=True, exist_ok=True)


def check_configuration(cache: Location, asked: Manifest) -> Manifest | None:
    """The manifest that a cache has, None where there is none yet.

    Raises ``CacheConflictError`` with the differences where it was made with another configuration than ``asked``.
    """
    if not (cache / MANIFEST).exists():
        return None
    manifest = read_manifest(cache)
    if differences := manifest.differences(asked):
        listing = "\n".join(f"  {line}" for line in differences)
        raise CacheConflictError(
            f"{cache} was made with another configuration:\n{listing}\n"
            f"choose another output folder, ask for the same{_flag_of(manifest, asked)}, or replace the cache with "
            "--overwrite"
        )
    return manifest


def _flag_of(manifest: Manifest, asked: Manifest) -> str:
    """The flag that asks for what the cache has, in brackets: only the first that differs, others follow from it."""
    has, keys = manifest.configuration, [key for key, _, _ in manifest.differing(asked)]
    if "model.model" in keys:
        return f" (--model {has['model']['model']})"
    if any(key.startswith("method.") for key in keys):
        names = [str(method["name"]) for method in has["method"].get("methods", ())]
        return f" (--method {','.join(names)})" if names else ""
    return f" (--codec {has['tokens_dtype']})" if "tokens_dtype" in keys else ""


def clear_temporaries(cache: Location, part: Part | None = None) -> None:
    """Remove what killed writers left; the caller holds the lock, of the cache or of the part."""
    with writing(cache):
        for folder in (cache, *(cache / table for table in TABLES)):
            remove_temporaries(folder, bool if part is None else part.may_remove)


def prepare(cache: Location, asked: Manifest, *, overwrite: bool, part: Part | None = None) -> Manifest:
    """Bring the folder in a state to write in, under the lock; gives the manifest that holds for it.

    Raises ``CacheConflictError`` where the cache was made with another configuration.
    """
    manifest = None
    if not overwrite:
        manifest = check_configuration(cache, asked)
    elif (cache / MANIFEST).exists():
        read_manifest(cache)  # only a cache may be emptied
        # Shards before the manifest: at every moment the folder is a whole cache, of fewer and fewer items.
        with writing(cache):
            (cache / SUCCESS).unlink(missing_ok=True)
            for shard in list_shards(cache):
                fault_point("overwrite.before_deletion")
                shard.path.unlink()
                fault_point("overwrite.after_deletion")
    with writing(cache):
        for table in TABLES:
            (cache / table).mkdir(exist_ok=True)
    clear_temporaries(cache, part)
    with writing(cache):
        fault_point("open.before_removing_success")
        (cache / SUCCESS).unlink(missing_ok=True)
        fault_point("open.after_removing_success")
    if manifest is None:
        asked.write(cache)
    sync_folder(cache)
    return manifest or asked
