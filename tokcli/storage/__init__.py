"""Files that are not on this machine: any URL that fsspec knows, ``s3://bucket/folder`` before all.

``location`` gives a ``pathlib.Path`` for what lies on this machine and a ``RemotePath`` for the rest.
"""

from tokcli.storage.failures import TRIES, read
from tokcli.storage.remote import Location, RemotePath, location, look_up, only_local, work_folder
from tokcli.storage.scratch import Scratch, scratch_folder
from tokcli.storage.urls import Facts, filesystem_of, is_url, local_path

__all__ = [
    "TRIES",
    "Facts",
    "Location",
    "RemotePath",
    "Scratch",
    "filesystem_of",
    "is_url",
    "local_path",
    "location",
    "look_up",
    "only_local",
    "read",
    "scratch_folder",
    "work_folder",
]
