"""Cases of dycoke, vidcom2, aim, tempme and aot."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, mask_of, video

from tokcli.methods import resolve
from tokcli.ops.similarity import cosine


def dycoke_ttm(case: str, arrays: Arrays) -> None:
    features = torch.from_numpy(arrays["features"])
    steps, places, _ = features.shape
    options = {"variant": "official", "merging_ratio": float(arrays["merging_ratio"])}
    kept = resolve("dycoke", options=options).compress(video(features, (steps, 1, places)), "item").source
    # The authors emit a step that is not whole by ascending similarity with the one it was compared with.
    order = []
    for step in range(steps):
        here = kept[kept // places == step]
        if len(here) < places and step % 4:
            reference = features[step - step % 4 + (step % 4 & (step % 4 - 1))]
            here = here[torch.sort(cosine(features[step], reference)[here % places], stable=True).indices]
        order.append(here)
    index = torch.cat(order)
    expected = arrays["kept_index_in_output_order"]
    if arrays["merging_ratio"] == 0:
        index, expected = kept, np.sort(expected)
    np.testing.assert_array_equal(index, expected)
    if arrays["kept_tokens"].size and arrays["merging_ratio"] != 0:
        np.testing.assert_array_equal(features.reshape(steps * places, -1)[index], arrays["kept_tokens"])


def vidcom2(case: str, arrays: Arrays) -> None:
    options = {"variant": "official", "pruning_rate": float(arrays["q"])}
    visual = video(arrays["video_embeds"], arrays["grid_thw_merged"])
    kept = resolve("vidcom2", options=options).compress(visual, "item")
    assert len(kept) == arrays["retained_count"]
    np.testing.assert_array_equal(mask_of(kept, arrays["retention_mask"].shape), arrays["retention_mask"])


RUNNERS = {"dycoke_ttm": dycoke_ttm, "vidcom2": vidcom2}
