"""The picture of `serve_load`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COLOURS = {"no-op": "#b5b5b5", "no-op POST": "#777777", "accept": "#c8502f", "status": "#2f6dc8"}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Requests a second and p50 by how many at once; latencies with and without a queue; the rest as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [part for part in ("a", "d", "b", "c") if part in figures]
    if not panels:
        return
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axes, part in zip(all_axes[0], panels, strict=True):
        if part == "a":
            for name, colour in _COLOURS.items():
                at_once = [str(row["at_once"]) for row in figures["a"]]
                axes.plot(at_once, [row[name]["per_s"] for row in figures["a"]], "o-", color=colour, label=name)
            axes.set(title="requests a second", xlabel="at once", ylim=(0, None))
            axes.legend()
        elif part == "d":
            for place, (name, colour) in enumerate(_COLOURS.items()):
                for shift, when in ((-0.2, "empty"), (0.2, "full")):
                    got = figures["d"][when][name]
                    axes.bar(place + shift, got["p50_ms"], 0.36, color=colour, alpha=0.5 if when == "empty" else 1.0)
                    axes.plot([place + shift] * 2, [got["p50_ms"], got["p99_ms"]], color="#333333", lw=1)
            axes.set(title=f"p50 and p99, ms: none | {figures['d']['queued']:,} queued")
            axes.set_xticks(range(len(_COLOURS)), list(_COLOURS), fontsize=8)
        elif part == "b":
            axes.hist(figures["b"]["each_ms"], bins=20, color=_COLOURS["accept"])
            axes.axvline(figures["goals"]["first_step_ms"], color="#333333", ls="--")
            axes.set(title="accept → first step, ms", ylabel="tasks")
        else:
            for name, shift, colour in (("bulk_per_s", -0.2, "#9a9a9a"), ("endpoint_per_s", 0.2, "#c8502f")):
                places = [number + shift for number in range(len(figures["c"][name]))]
                axes.bar(places, figures["c"][name], 0.36, color=colour, label=name.removesuffix("_per_s"))
            axes.set(title="clips a second, by round", xticks=[])
            axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=140)
