"""Files that are not on this machine: any URL that fsspec knows, ``s3://bucket/folder`` before all.

What is said of a path here is a URL's; a path of this machine stays a ``pathlib.Path`` and never comes here.
"""

from tokcli.storage.failures import TRIES, read
from tokcli.storage.scratch import Scratch
from tokcli.storage.urls import Facts, filesystem_of, is_url, local_path

__all__ = ["TRIES", "Facts", "Scratch", "filesystem_of", "is_url", "local_path", "read"]
