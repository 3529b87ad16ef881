"""Formats numbers for people: short, with their unit, and never rounded to 0 % or 100 % where that isn't exact."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def compact(number: float, unit: str) -> str:
    """A number with three significant digits and an SI prefix: `11.2 GMAC`, `352 B`."""
    value, step = float(number), 0
    while abs(value) >= 999.5 and step < len(_PREFIXES) - 1:
        value, step = value / 1000, step + 1
    return f"{_digits(value) if step else f'{value:g}'} {_PREFIXES[step]}{unit}".rstrip()


def share(part: float) -> str:
    """A share in per cent with one decimal; `0 %` and `100 %` only where they are exact."""
    if part in (0, 1):
        return f"{part:.0%}".replace("%", " %")
    if 0 < part < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < part < 1 else f"{100 * part:.1f} %"


def drift(value: float, unit: str) -> str:
    """A drift in the unit of its kind: degrees, or a share in per cent."""
    if unit == "degrees":
        return f"{_digits(value)}°"
    return f"{_digits(100 * value)} %"


def milliseconds(seconds: float) -> str:
    """A frame's or stage's time in milliseconds: `0.42 ms`, `83.1 ms`, `412 ms`; from ten seconds on as `duration`."""
    return f"{_digits(1e3 * seconds)} ms" if seconds < 10 else duration(seconds)


def duration(seconds: float) -> str:
    """A length of time: `8.31 s`, `4 min 05 s`, `2 h 07 min`."""
    if seconds < 100:
        return f"{_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count(number: int, thing: str = "", plural: str = "") -> str:
    """A whole number in groups of three digits, and what is counted: `1 frame`, `12 500 frames`."""
    word = thing if number == 1 else plural or (f"{thing}s" if thing else "")
    return f"{number:,}".replace(",", "\u202f") + (f" {word}" if word else "")


def _digits(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"
