"""A small writer of SVG: one plot of points with spreads on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

# Colours that stay apart for most colour-blind readers (Okabe and Ito), with a shape for each.
STYLES = [
    ("#d55e00", "circle"),
    ("#000000", "line"),
    ("#7f7f7f", "diamond"),
    ("#0072b2", "square"),
    ("#009e73", "diamond"),
    ("#cc79a7", "circle"),
    ("#56b4e9", "square"),
    ("#e69f00", "diamond"),
    ("#8c6d1f", "circle"),
    ("#444444", "cross"),
]

Point = tuple[float, float, float]


def marker(x: float, y: float, style: tuple[str, str], size: float) -> str:
    colour, shape = style
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}"/>'
    if shape == "square":
        side = size * 1.7
        return (
            f'<rect x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'fill="{colour}"/>'
        )
    if shape == "diamond":
        s = size * 1.25
        return (
            f'<path d="M{x:.1f} {y - s:.1f}L{x + s:.1f} {y:.1f}L{x:.1f} {y + s:.1f}L{x - s:.1f} {y:.1f}Z" '
            f'fill="{colour}"/>'
        )
    if shape == "cross":
        return (
            f'<path d="M{x - size:.1f} {y - size:.1f}L{x + size:.1f} {y + size:.1f}M{x - size:.1f} {y + size:.1f}'
            f'L{x + size:.1f} {y - size:.1f}" stroke="{colour}" stroke-width="1.8"/>'
        )
    return f'<path d="M{x:.1f} {y - size * 1.6:.1f}V{y + size * 1.6:.1f}" stroke="{colour}" stroke-width="2.5"/>'


def dot_plot(
    title: str, lines: Sequence[tuple[str, dict[str, Point]]], names: Sequence[tuple[str, str, bool]], emphasised: str
) -> str:
    """`lines` are (label, {name: (median, low, high)}), `names` (name, title, is a floor) in the legend's order. Values
    are ratios; further right is better, and what is below 1/16 is drawn there. Returns the document, readable on light
    and dark pages."""
    left, right, top, pitch = 470, 40, 58 + 18 * ((len(names) + 2) // 3), 24
    width = 1120
    height = top + pitch * len(lines) + 46
    values = [v for _, points in lines for point in points.values() for v in point if v > 0] or [1.0]
    low: float = math.floor(math.log2(max(min([*values, 1.0]), 1 / 16)) * 2) / 2
    high: float = math.ceil(math.log2(max(max(values), 2.0)) * 2) / 2
    span = width - left - right

    def x_of(value: float) -> float:
        return left + (math.log2(max(value, 2.0**low)) - low) / (high - low) * span

    x: float
    y: float
    style = {name: STYLES[i % len(STYLES)] for i, (name, _, _) in enumerate(names)}
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="600" fill="#111">{escape(title)}</text>',
    ]
    for i, (name, text, floor) in enumerate(names):
        x, y = 24 + i % 3 * 360, 50 + i // 3 * 18
        out.append(marker(x, y - 4, style[name], 5 if name == emphasised else 4))
        weight = ' font-weight="600"' if name == emphasised else ""
        shown = text if "floor" in text or not floor else text + " (floor)"
        out.append(f'<text x="{x + 14}" y="{y}"{weight} fill="#111">{escape(shown)}</text>')
    bottom = top + pitch * len(lines)
    ticks = [
        t
        for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
        if low <= math.log2(t) <= high
    ]
    for tick in ticks:
        x = x_of(tick)
        colour = "#888" if tick == 1 else "#dddddd"
        out.append(f'<path d="M{x:.1f} {top - 4}V{bottom}" stroke="{colour}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#444">{tick:g}x</text>')
    for row, (label, points) in enumerate(lines):
        y = top + pitch * row + pitch / 2
        if row % 2:
            out.append(
                f'<rect x="0" y="{y - pitch / 2:.1f}" width="{width}" height="{pitch}" fill="#000" '
                'fill-opacity="0.03"/>'
            )
        out.append(f'<text x="{left - 14}" y="{y + 4:.1f}" text-anchor="end" fill="#111">{escape(label)}</text>')
        ordered = [name for name, _, _ in names if name in points and name != emphasised]
        for name in [*ordered, *([emphasised] if emphasised in points else [])]:
            median, below, above = points[name]
            out.append(
                f'<path d="M{x_of(below):.1f} {y:.1f}H{x_of(above):.1f}" stroke="{style[name][0]}" '
                'stroke-opacity="0.6" stroke-width="1.5"/>'
            )
            out.append(marker(x_of(median), y, style[name], 6 if name == emphasised else 4))
    out.append(
        f'<text x="{left + span / 2:.0f}" y="{bottom + 36}" text-anchor="middle" fill="#444">further right is '
        "better; logarithmic</text>"
    )
    return "\n".join([*out, "</svg>", ""])
