"""Towers that can be given some of a frame's tokens: those that changed, while the others' are taken from before.

Their positions are rotary, so that a patch's place is told by numbers beside it, and they cut patches into rows, so
that rows can be left out. What is left out isn't attended to either: its neighbours' tokens change a little.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tokcli.models.base import SQUARE_SIGNALS
from tokcli.models.grid import GridAdapter

if TYPE_CHECKING:
    import torch

    from tokcli.models.in_tower import TowerBlocks
    from tokcli.models.settings import Settings


class UnitAdapter(GridAdapter):
    """Grid families with a tower of that kind. A unit is the merge * merge patches of a token."""

    def windows(self, config: Any, places: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor | None:
        """int64 (n,): a number for the window that each unit is in; None where the tower has no windows.

        Args:
            places: int64 (n, 3): step, row and column of each unit, ascending.
            grid: Rows and columns of a step.
        """
        return None

    def in_tower(self, model: Any, settings: Settings, grid: tuple[int, int]) -> TowerBlocks:
        import torch

        from tokcli.models.in_tower_grid import GridBlocks

        rows, columns = grid
        places = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
        windows, visual = self.windows(model.config, places, grid), model.model.visual
        whole = tuple(self.signal_blocks(model.config, len(visual.blocks)))
        return GridBlocks(visual, settings, grid, whole, windows)

    def encode_units(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str], chosen: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As ``encode``, of some tokens alone: in each step these see one another and nothing else.

        Args:
            chosen: bool (steps, rows, columns), at least one of each step.

        Returns:
            (n, D) for the n chosen tokens in order, and their signals. With all chosen, what ``encode`` gives.
        """
        import torch

        from tokcli.models.preprocess import to_patches
        from tokcli.models.signals import listening

        visual, merge = model.model.visual, settings.merge_size
        unit = merge * merge
        steps, rows, columns = chosen.shape
        places = torch.nonzero(chosen)
        inner = torch.arange(unit)
        positions = torch.stack(
            [places[:, 1:2] * merge + inner // merge, places[:, 2:3] * merge + inner % merge], dim=-1
        )
        lengths = chosen.flatten(1).sum(dim=1) * unit
        layout: dict[str, Any] = {"position_ids": positions.flatten(0, 1), "cu_seqlens": _edges(lengths)}
        windows = self.windows(model.config, places, (rows, columns))
        order = torch.arange(len(places)) if windows is None else torch.argsort(windows, stable=True)
        if windows is not None:
            _, sizes = torch.unique_consecutive(windows[order], return_counts=True)
            layout |= {"window_index": order, "cu_window_seqlens": _edges(sizes * unit)}
        patches = to_patches(pixels, settings, chosen.flatten().repeat_interleave(unit))
        with listening(
            wanted & self.signals - SQUARE_SIGNALS, partial(self.source, model, lengths.tolist(), unit)
        ) as signals:
            output = visual(
                patches.to(visual.dtype),
                grid_thw=torch.tensor([[steps, rows * merge, columns * merge]], device=pixels.device),
                **{name: table.to(pixels.device) for name, table in layout.items()},
                return_dict=True,
            )
        place = torch.argsort(order).to(pixels.device)
        return output.pooler_output, {name: values[place] for name, values in signals.items()}


def _edges(lengths: torch.Tensor) -> torch.Tensor:
    """int32 (n + 1,): where segments of these lengths begin and the last one ends."""
    import torch

    return torch.nn.functional.pad(lengths.cumsum(dim=0, dtype=torch.int32), (1, 0))
