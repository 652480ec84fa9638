"""What a decoder needs, loaded once for all of them. What cannot be loaded is told of by the decoder that needs it."""

import contextlib

with contextlib.suppress(Exception):
    import torch  # noqa: F401

    import tokcli.media.image_pillow
    import tokcli.media.video_pyav
    import tokcli.models.preprocess
    import tokcli.pipeline.decoder_process  # noqa: F401
