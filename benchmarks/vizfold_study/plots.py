"""The original's five plots, with the same axes where they meant something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib import pyplot as plt

from benchmarks.vizfold_study.formats import FORMATS, OURS
from benchmarks.vizfold_study.parallel import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.vizfold_study.results import Results

plt.rcParams.update(
    {
        "backend": "agg",
        "svg.fonttype": "none",
        "svg.hashsalt": "trace-archive",  # the same plot, the same bytes
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)
_COLOURS: Final = dict(zip(FORMATS, ("#7f7f7f", "#c0392b", "#e59866", "#2e8b57"), strict=False))
_READS: Final = {
    "full_archive_read": ("full", "true full archive read"),
    "layer_partial_read": ("layer", "attention of one layer"),
    "random_access_scaling": ("window", "one 32 x 32 window anywhere"),
}


def plot(folder: Path, found: Sequence[Results]) -> None:
    """Draw all five, each as PNG and SVG."""
    sizes = [one.trace.residues for one in found]
    figure, axes = plt.subplots(figsize=(4.5, 3.2))
    _lines(
        axes, sizes, lambda name: [one.stored[name][0] / 1e9 / one.trace.layers for one in found]
    )
    axes.set_ylabel("GB a layer")
    axes.set_title("Storage size scaling (random values: nothing shrinks)", loc="left")
    _save(figure, folder / "storage_size_scaling")
    for file, (key, title) in _READS.items():
        figure, axes = plt.subplots(figsize=(4.5, 3.2))
        _lines(axes, sizes, lambda name, key=key: _walls(found, key, name))  # type: ignore[misc]
        axes.set_ylabel("seconds")
        axes.set_title(f"{title}, page cache warm", loc="left")
        _save(figure, folder / file)
    _parallel(folder, found)


def _parallel(folder: Path, found: Sequence[Results]) -> None:
    figure, panels = plt.subplots(
        2, len(found), figsize=(3 * len(found), 5), squeeze=False, layout="constrained"
    )
    for row, kind in enumerate(("threads", "processes")):
        for column, one in enumerate(found):
            axes = panels[row, column]
            for name in FORMATS:
                timings = [one.timings[f"{kind} {count}"].get(name) for count in WORKERS]
                if all(timings):
                    speeds = [200 / timing.wall_s for timing in timings if timing is not None]
                    _line(axes, WORKERS, speeds, name)
            axes.set_title(f"N = {one.trace.residues}, {kind}", loc="left")
            axes.set_xticks(WORKERS, [str(count) for count in WORKERS])
            axes.set_ylabel("windows a second")
    panels[0, 0].legend(frameon=False)
    _save(figure, folder / "parallel_interpretability_workload")


def _walls(found: Sequence[Results], key: str, name: str) -> list[float]:
    return [one.timings[key][name].wall_s for one in found]


def _lines(axes: Any, sizes: Sequence[int], values: Callable[[str], list[float]]) -> None:
    for name in FORMATS:
        _line(axes, sizes, values(name), name)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("residues (N)")
    axes.legend(frameon=False)


def _line(axes: Any, x: Sequence[int], y: Sequence[float], name: str) -> None:
    ours = name == OURS
    axes.plot(
        x,
        y,
        marker="o",
        markersize=4 if ours else 3,
        linewidth=2 if ours else 1.2,
        color="#1b6ca8" if ours else _COLOURS[name],
        label=name,
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.minorticks_off()


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(path.with_suffix(".png"), dpi=110, bbox_inches="tight")
    plt.close(figure)
