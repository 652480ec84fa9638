"""Media files in, upright RGB frames out.

``scan_inputs`` finds files, ``open_media`` reads one. Importing this package loads neither av nor PIL.
"""

from tokcli.media.encode import write_image, write_video
from tokcli.media.hashing import hash_file, hash_if_readable
from tokcli.media.limits import Limits
from tokcli.media.probe import STEPS, probe
from tokcli.media.reader import DecodeReport, MediaReader, decoder_names, open_media
from tokcli.media.sampling import Sampling
from tokcli.media.scan import ScanFailure, ScanResult, scan_inputs

__all__ = [
    "STEPS",
    "DecodeReport",
    "Limits",
    "MediaReader",
    "Sampling",
    "ScanFailure",
    "ScanResult",
    "decoder_names",
    "hash_file",
    "hash_if_readable",
    "open_media",
    "probe",
    "scan_inputs",
    "write_image",
    "write_video",
]
