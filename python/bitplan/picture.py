"""A plan as text, and as a picture for notebooks: HTML with an SVG of its own, no scripts, no other files."""
from html import escape

_ROW, _BAR, _GAP, _SIZE = 20, 220, 12, 12  # pixels: height of a layer, length of eight bits, gap, text
_LETTER = 7.3  # pixels of a letter of the monospaced text
_MOST_NAME = 48  # letters of a name; longer ones lose their middle


def _short(name):
    half = (_MOST_NAME - 1) // 2
    return name if len(name) <= _MOST_NAME else name[:half] + "…" + name[-half:]


def _rows(plan):
    for layer in plan.layers:
        row = (_short(layer.name), layer.kind, "x".join(map(str, layer.shape)), f"{layer.weights:,}", str(layer.bits),
               layer.grid, "" if layer.predicted_rise is None else f"{layer.predicted_rise:.2g}")
        inputs = "float" if layer.activation_bits > 16 else str(layer.activation_bits)
        yield row[:6] + (inputs,) * plan.rounds_activations + row[6:]


def text(plan):
    head = ("layer", "kind", "shape", "weights", "bits", "grid", "rise")
    if plan.rounds_activations:
        head = head[:6] + ("input bits",) + head[6:]
    rows = [head, *_rows(plan)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, tuple("-" * width for width in widths))

    def line(row):
        cells = [cell.rjust(width) if name in ("weights", "bits", "input bits", "rise") else cell.ljust(width)
                 for cell, width, name in zip(row, widths, head)]
        return "  ".join(cells).rstrip()

    figures = plan.summary()
    longest = max(len(what) for what, _ in figures)
    return "\n".join([*map(line, rows), "", *(f"{what.ljust(longest)}  {value}" for what, value in figures)])


def _colour(bits):
    """From red (few bits) to blue (many); grey where a layer is removed or left alone."""
    if not 1 <= bits <= 8:
        return "#999999"
    return f"hsl({10 + 25 * (bits - 1)}, 60%, 50%)"


def svg(plan):
    """A bar for every layer: as long as its bits, 32 bits as long as eight."""
    names = max(len(_short(layer.name)) for layer in plan.layers) * _LETTER + 4
    left = names + _GAP
    width, height = left + _BAR + 230, _ROW * len(plan.layers) + _ROW
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
             f'viewBox="0 0 {width:.0f} {height}" font-family="monospace" font-size="{_SIZE}" fill="currentColor" '
             'role="img"><title>bits of every layer</title>']
    for bits in range(0, 9, 2):
        x = left + _BAR * bits / 8
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _ROW}" stroke="currentColor" '
                     f'stroke-opacity="0.2"/><text x="{x:.1f}" y="{height - 5}" text-anchor="middle">{bits}</text>')
    for i, layer in enumerate(plan.layers):
        y, length = _ROW * i, _BAR * min(layer.bits, 8) / 8
        base = y + _ROW * 0.7
        parts.append(
            f'<g><title>{escape(layer.name)}: {layer.bits} bits, grid {escape(layer.grid)}</title>'
            f'<text x="{names:.1f}" y="{base:.1f}" text-anchor="end">{escape(_short(layer.name))}</text>'
            f'<rect x="{left:.1f}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" fill="{_colour(layer.bits)}"/>'
            f'<text x="{left + _BAR + _GAP}" y="{base:.1f}">{layer.bits} bits, {layer.weights:,} weights</text></g>')
    return "".join(parts) + "</svg>"


def html(plan):
    rows = "".join(f"<tr><td>{escape(what)}</td><td>{escape(value)}</td></tr>" for what, value in plan.summary())
    return f'<div>{svg(plan)}<table>{rows}</table></div>'
