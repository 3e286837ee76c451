"""Plots of a report, each as SVG (small, its text is text) and as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from matplotlib import pyplot as plt

from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.findings import Curve, Number, Table

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

_OURS, _REACHED, _MISSED = "#1b6ca8", "#2e8b57", "#c0392b"
_WIDTH: Final = 8.0
"""Inches."""


def plot_numbers(path: Path, numbers: Mapping[str, Number]) -> None:
    """Draw how many times better than promised each number is."""
    taken = [(TARGETS[key], number) for key, number in numbers.items()]
    if not taken:
        return
    figure, axes = plt.subplots(figsize=(_WIDTH, 0.8 + 0.26 * len(taken)))
    names = [target.key for target, _ in taken]
    margins = [max(target.margin(number.value), 1e-3) for target, number in taken]
    colours = [_REACHED if t.reached(number.value) else _MISSED for t, number in taken]
    axes.hlines(names, 1, margins, color=colours, linewidth=1)
    axes.scatter(margins, names, color=colours, zorder=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("times better than promised (1: just reached)")
    _save(figure, path)


def plot_tables(path: Path, tables: Sequence[Table]) -> None:
    """Draw the CPU (filled) and wall time (hollow) of every way, one panel a table."""
    heights = [1.0 + 0.3 * len(table.rows) for table in tables]
    figure, panels = plt.subplots(
        len(tables),
        figsize=(_WIDTH, sum(heights)),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axes, table in zip(panels[:, 0], tables, strict=True):
        places = range(len(table.rows))
        # On a logarithmic axis a bar would have a length that means nothing.
        axes.grid(axis="y", linewidth=0.4)
        axes.scatter([row.cpu_s * 1e3 for row in table.rows], places, color=_OURS, label="CPU")
        axes.scatter(
            [row.wall_s * 1e3 for row in table.rows],
            places,
            facecolors="none",
            edgecolors=_OURS,
            s=60,
            label="wall",
        )
        axes.set_yticks(places, [row.name for row in table.rows])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("ms")
        axes.set_title(table.title, loc="left")
    panels[0, 0].legend(frameon=False)
    _save(figure, path)


def plot_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Draw every curve with both axes logarithmic, two panels a line."""
    lines = -(-len(curves) // 2)
    figure, panels = plt.subplots(
        lines, 2, figsize=(_WIDTH, 2.8 * lines), squeeze=False, layout="constrained"
    )
    for axes, curve in zip(panels.flat, curves, strict=False):
        for name, points in curve.series.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(curve.x)
        axes.set_ylabel(curve.y)
        axes.set_title(curve.title, loc="left")
        axes.legend(frameon=False)
    for axes in panels.flat[len(curves) :]:
        axes.remove()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    plt.close(figure)
