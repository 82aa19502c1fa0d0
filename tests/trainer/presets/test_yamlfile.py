"""YAML that would mislead or exhaust the reader is refused in one line, fast."""

import time
from pathlib import Path

import pytest

from trainer.errors import InputError
from trainer.presets.yamlfile import parse_yaml, read_yaml

_TENS = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("030", "030: YAML 1.1 reads this as 24, an octal number; write 24, or '030' for text"),
        ("-010", "-010: YAML 1.1 reads this as -8, an octal number"),
        ("1:30", "1:30: YAML 1.1 reads this as 90, a number in base 60; write 90, or '1:30' for text"),
        ("1:30.5", "1:30.5: YAML 1.1 reads this as 90.5, a number in base 60"),
        ("off", "off: YAML 1.1 reads this word as false; write false, or 'off' for text"),
        ("Yes", "Yes: YAML 1.1 reads this word as true; write true"),
        ("2026-01-31", "2026-01-31: YAML reads this as a date; write '2026-01-31' for text"),
        ("9" * 400, f"{'9' * 40}...: a number of 400 digits; give one below 2**63"),
        ("9" * 5000, "a number of 5000 digits"),
        (str(2**63), "9223372036854775808: too large for an integer"),
        ("&a [*a]", "*a: an alias inside its own value"),
    ],
)
def test_a_surprising_value_is_named(value: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(f"ok: 1\nkey: {value}\n", "x.yaml")
    assert str(caught.value).startswith("x.yaml: line 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_surprising_name_is_named() -> None:
    with pytest.raises(InputError, match=r"line 1: no: YAML 1\.1 reads this word as false"):
        parse_yaml("no: {}", "x.yaml")


def test_plain_values_are_read_as_written() -> None:
    text = "a: [0, -5, 1_000, 0x1F, 1e-3, .5, true, False, '030', 'off', '1:30', 08x]\nb: &b {c: 1}\nd: *b"
    assert parse_yaml(text, "x") == {
        "a": [0, -5, 1000, 31, 0.001, 0.5, True, False, "030", "off", "1:30", "08x"], "b": {"c": 1}, "d": {"c": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a0: &a0 [x]\n" + _TENS, "more than 100,000 keys and values"),
        (f"a: &a {'x' * 200_000}\nb: [{', '.join(['*a'] * 9_000)}]", "more than 100,000 keys and values"),
        ("[" * 100_000 + "]" * 100_000, "nesting: deeper than 50 levels"),
        ("- 1\n" * 120_000, "longer than 250,000"),
    ],
    ids=["aliases of lists", "aliases of a text", "nesting", "length"],
)
def test_a_text_that_would_fill_the_memory(text: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        parse_yaml(text, "x.yaml")
    assert time.monotonic() - start < 2


def test_a_huge_file_and_an_endless_one(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("a: 1\n" * 2_000_000)
    start = time.monotonic()
    for path in (tmp_path / "big.yaml", Path("/dev/zero")):
        with pytest.raises(InputError, match="longer than 250,000 characters"):
            read_yaml(path)
    assert time.monotonic() - start < 2
