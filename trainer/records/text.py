"""Words that messages share."""


def count_of(number: float, noun: str) -> str:
    """Return `1 job`, `2 jobs`, `2 processes`, `1,000 tokens`."""
    ending = "" if round(number) == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,.0f} {noun}{ending}"
