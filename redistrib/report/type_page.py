"""A type as a page: which devices hold which block."""

from __future__ import annotations

from redistrib import display
from redistrib.report.figures import format_bytes, format_shape
from redistrib.report.html import figures, fragment, layout
from redistrib.types.array_type import ArrayType


@display.to_html.register
def type_html(t: ArrayType) -> str:
    """A type as an HTML fragment."""
    tile = f"{format_shape(t.tile_shape)}, {format_bytes(t.tile_bytes)} on each device"
    about = [("mesh", str(t.mesh) or "one device"), ("tile", tile)]
    return fragment(layout(t, ""), figures(about))
