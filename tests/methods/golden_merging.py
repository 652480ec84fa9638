"""Cases of what merges tokens of stills: the matching of ToMe, and folder."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, video

from tokcli.methods import resolve
from tokcli.methods.folder import folded, longer, magnified
from tokcli.ops.matching import Merging, bipartite_matching, every_kth_matching

NOT_PORTABLE = {
    "tome-g12cls_ties_r25": "which of equal tokens merge is left open by the authors' sort: counts, total size and the "
    "size-weighted sum can be compared",
}


def tome(case: str, arrays: Arrays) -> None:
    tokens, metric = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["metric"])
    if "k" in arrays:
        matching = every_kth_matching(metric, int(arrays["k"]))
    else:
        protected = int(arrays["class_token"]) + int(arrays.get("distill_token", 0))
        matching = bipartite_matching(metric, int(arrays["r"]), protected=protected)
    sizes = torch.from_numpy(arrays["size_in"])[:, :, 0] if "size_in" in arrays else None
    start = Merging.start(tokens, sizes)
    left = start.apply(matching, matching.official_order())
    if case in NOT_PORTABLE:
        assert left.sizes.shape == arrays["size_out"].shape[:2]
        assert left.sizes.sum() == arrays["size_out"].sum()
        expected = (arrays["merged_wavg"] * arrays["size_out"]).sum(axis=1)
        np.testing.assert_allclose((left.tokens * left.sizes.unsqueeze(2)).sum(dim=1), expected, atol=1e-3)
        return
    np.testing.assert_allclose(left.tokens, arrays["merged_wavg"], atol=1e-4)
    np.testing.assert_array_equal(left.sizes, arrays["size_out"][:, :, 0])
    if "source" in arrays:
        np.testing.assert_array_equal(left.sources(), arrays["source"])
        alike = start.apply(matching, matching.official_order(), by_size=False)
        np.testing.assert_allclose(alike.tokens, arrays["merged_mean_mode"], atol=1e-4)
    # The authors' unmerge does not know that their merge puts a distillation token in front.
    read = start.apply(matching, matching.sources_first()) if arrays.get("distill_token") else left
    np.testing.assert_allclose(read.unmerge(left.tokens), arrays["unmerged"], atol=1e-4)


def folder(case: str, arrays: Arrays) -> None:
    tokens, r, protected = torch.from_numpy(arrays["x"]), int(arrays["r"]), int(arrays["class_token"])
    length = tokens.shape[1]
    left = folded(tokens, r, protected=protected)
    np.testing.assert_allclose(left.tokens, arrays["metric_out"], atol=1e-3)
    np.testing.assert_array_equal(left.sizes, arrays["size"][:, :, 0])
    values = magnified(left) if longer(length, r) else left.tokens
    np.testing.assert_allclose(values, arrays["out"], atol=1e-3)
    if not protected:
        visual = video(tokens[0], (1, 1, length))
        kept = resolve("folder", max_tokens=length - r, options={"variant": "official"}).compress(visual, "item")
        np.testing.assert_allclose(kept.tokens, arrays["out"][0], atol=1e-3)
        np.testing.assert_array_equal(kept.mass, arrays["size"][0, :, 0])


RUNNERS = {"tome": tome, "folder": folder}
