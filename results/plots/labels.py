"""Where the names of points and lines go, so that none covers another: plain geometry, in pixels."""

from collections.abc import Sequence

CHAR_PX, LINE_PX, MARKER_PX = 6.6, 15, 12  # of a label of 12 px, and of a marker
_AROUND_PX = {False: 22, True: 12}
"""What a name keeps clear of around another's marker: more where no line says whose name it is."""

WIDE_PX = (640, 800, 1000, 1250)
PHONE_PX = (260, 320, 400, 510, *WIDE_PX)
"""Widths of the drawn area for which names are placed: points move apart in a wider one, and a name on the left of one can
run into the name on the right of another."""

_MOST_NAMES = 40
_SIDES = ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))  # of a point: right, below
_LEADS_PX = (0, 20, 40)  # between a point and its name; with a line where they do not touch
Offset = tuple[float, float]
"""From a point to the middle of its name, in pixels right and down."""

_Box = tuple[float, float, float, float]  # left, top, right, bottom


def place_labels(
    points: Sequence[tuple[float, float]], chars: Sequence[int], x_shown: tuple[float, float], y_shown: tuple[float, float],
    height_px: float, widths_px: Sequence[float], placed: Sequence[Offset | None] = (),
) -> list[Offset | None]:  # fmt: skip
    """For each point, where its name goes, None where it would cover another name or a marker.

    Args:
        points: in data coordinates, in the order in which names are placed; only the first of many get one.
        chars: the length of each name.
        height_px, widths_px: of the area; names must fit at each of these widths.
        placed: of each point, where its name stands already, if it does.
    """
    x_frac = [(x - x_shown[0]) / (x_shown[1] - x_shown[0]) for x, _ in points]
    y_px = [(y_shown[1] - y) / (y_shown[1] - y_shown[0]) * height_px for _, y in points]
    found: list[Offset | None] = list(placed) or [None] * len(points)

    def boxes(i: int, offset: Offset, wide: float, high: float) -> list[_Box]:
        return [_box(x_frac[i] * width + offset[0], y_px[i] + offset[1], wide, high) for width in widths_px]

    def is_free(own: list[_Box], others: Sequence[list[_Box]]) -> bool:
        is_inside = all(
            box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height_px
            for box, width in zip(own, widths_px, strict=True)
        )
        return is_inside and not any(any(map(_overlap, own, other)) for other in others)

    around = {lead: [boxes(i, (0, 0), size, size) for i in range(len(points))] for lead, size in _AROUND_PX.items()}
    names = [boxes(i, offset, chars[i] * CHAR_PX, LINE_PX) for i, offset in enumerate(found) if offset]
    for i in range(min(len(points), _MOST_NAMES)):
        if found[i]:
            continue
        wide = chars[i] * CHAR_PX
        for lead_px in _LEADS_PX:
            markers = around[lead_px > 0]
            for right, below in _SIDES:
                far = MARKER_PX / 2 + lead_px
                offset = right * (wide / 2 + far), below * (LINE_PX / 2 + far)
                own = boxes(i, offset, wide, LINE_PX)
                if found[i] is None and is_free(own, [*names, *markers[:i], *markers[i + 1 :]]):
                    found[i] = offset
                    names.append(own)
    return found


def _box(x: float, y: float, wide: float, high: float) -> _Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart to be `gap` or more from each other, in the same order, as little as a sweep down and up can."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = [positions[i] for i in order]
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    shift = (moved[-1] - positions[order[-1]]) / 2 if moved else 0.0
    found = [0.0] * len(moved)
    for k, i in enumerate(order):
        found[i] = moved[k] - shift
    return found
