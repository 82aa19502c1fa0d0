"""Label positions in pixels, chosen so that no label overlaps another label or a marker."""

from collections.abc import Sequence

CHAR_PX, LINE_PX, MARKER_PX = 6.6, 15, 12
"""Width of a character and height of a line of a 12 px label; size of a marker."""
MIN_WIDTH_PX = 470
"""Narrowest plot area in which points are labelled."""

_Box = tuple[float, float, float, float]  # centre x, centre y, width, height


def place_labels(
    points: Sequence[tuple[float, float, float]], chars: Sequence[int], x_range: tuple[float, float],
    y_range: tuple[float, float], height_px: float,
) -> list[int | None]:  # fmt: skip
    """Choose for each point whether its label goes above it, below it, or is left out because there is no room.

    Labels are centred on their points, so labels that do not overlap at `MIN_WIDTH_PX` do not overlap at any larger width.

    Args:
        points: x, low y and high y in data units; earlier points are labelled first.
        chars: length of each label.
        x_range, y_range: of the axes.
        height_px: of the plot area.
    Returns:
        1: above the high end; -1: below the low end; None: no label.
    """
    pixels_per_y = height_px / (y_range[1] - y_range[0])
    markers: list[_Box] = []
    for x, low, high in points:
        x_px = (x - x_range[0]) / (x_range[1] - x_range[0]) * MIN_WIDTH_PX
        y_px = ((low + high) / 2 - y_range[0]) * pixels_per_y
        markers.append((x_px, y_px, MARKER_PX, MARKER_PX + (high - low) * pixels_per_y))
    sides: list[int | None] = []
    occupied = list(markers)
    for (x, y, _, height), length in zip(markers, chars, strict=True):
        sides.append(None)
        for side in (1, -1):
            box = (x, y + side * (height + LINE_PX) / 2, length * CHAR_PX, LINE_PX)
            is_inside = (
                box[2] / 2 <= x <= MIN_WIDTH_PX - box[2] / 2 and LINE_PX / 2 <= box[1] <= height_px - LINE_PX / 2
            )
            if is_inside and not any(_overlap(box, other) for other in occupied):
                sides[-1] = side
                occupied.append(box)
                break
    return sides


def _overlap(a: _Box, b: _Box) -> bool:
    tolerance = 1e-9  # boxes that only touch do not overlap
    return 2 * abs(a[0] - b[0]) < a[2] + b[2] - tolerance and 2 * abs(a[1] - b[1]) < a[3] + b[3] - tolerance


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions apart until neighbours are at least `gap` from each other. Their order stays the same."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved: list[float] = []
    for i in order:
        moved.append(max(positions[i], moved[-1] + gap) if moved else positions[i])
    shift = (moved[-1] - positions[order[-1]]) / 2 if moved else 0.0
    return [position - shift for _, position in sorted(zip(order, moved, strict=True))]
