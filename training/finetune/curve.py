"""The loss of a run as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def draw_curve(losses: Sequence[float], path: Path) -> Path:
    """Write a PNG of the loss by step, with its running mean; returns the path."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, linewidth=0.6, alpha=0.4, label="each step")
    window = max(1, len(losses) // 30)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps[window - 1 :], smooth, linewidth=1.6, label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return path
