"""The settings that VFlowOpt's authors found for three budgets (ICCV 2025): what a hub is, and what may merge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubSetting:
    """What goes with one budget."""

    share: float
    """Of the tower's tokens that are left; the authors' language model drops more of them on its way."""
    threshold: float
    """How many times the mean attention a token has to receive to be a hub."""
    cell: float
    """Rows and columns of the cells in which what is not kept is merged."""


SETTINGS = (
    HubSetting(share=0.11662, threshold=39.265, cell=17.387),
    HubSetting(share=0.26510, threshold=34.760, cell=15.581),
    HubSetting(share=0.72332, threshold=28.683, cell=11.757),
)
"""Those for keeping 10, 25 and 50% in the end. The signal ``hub_attention`` has a column for each."""


def setting_for(share: float) -> int:
    """The number of the setting whose share is the nearest."""
    return min(range(len(SETTINGS)), key=lambda number: abs(SETTINGS[number].share - share))
