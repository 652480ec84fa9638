"""Pictures of what an evaluation measured. Needs matplotlib, which is imported when a picture is drawn."""

from tokcli.report.plots import write_plots

__all__ = ["write_plots"]
