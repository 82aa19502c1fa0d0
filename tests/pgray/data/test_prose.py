"""Which text counts as prose, and where source files contain it."""

import textwrap

import pytest

from pgray.data.prose import docstrings, paragraph_key, paragraphs

SENTENCE = "This is a sentence that should be kept as it is."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE, [SENTENCE]),
        ("Two lines that belong\n    to one sentence of it.", ["Two lines that belong to one sentence of it."]),
        (f"{SENTENCE}\n\n>>> f(1)\n1\n\n{SENTENCE}", [SENTENCE, SENTENCE]),
        (f"{SENTENCE}\n\n.. code-block:: python\n\n    this = is_the_code_that(we, do, not, want)\n", [SENTENCE]),
        (
            f"{SENTENCE}\n\nAs in the following::\n\n    {SENTENCE}\n\nThe end of this is near.",
            [SENTENCE, "The end of this is near."],
        ),
        (
            "Parameters\n----------\nx : array_like\n    The points at which it is evaluated.",
            ["The points at which it is evaluated."],
        ),
        (":param x: the number of times that it is run.", ["the number of times that it is run."]),
        (
            "- the first item is what it is;\n- the second item is on two\n  lines of this text.",
            ["the first item is what it is;", "the second item is on two lines of this text."],
        ),
        (
            "See :func:`~a.b` and `the page <http://x.y>`_ for what **it** is [1]_.",
            ["See a.b and the page for what it is."],
        ),
        ("a = b + c; d[e] = {f: g} for x in y if z.", []),
        ("Lorem ipsum dolor sit amet consectetur adipiscing elit sed.", []),
        ("Too short to keep.", []),
        ("The café – “naïve” as it is – will not be lost.", ["The café – “naïve” as it is – will not be lost."]),
    ],
)
def test_paragraphs(text: str, expected: list[str]) -> None:
    assert list(paragraphs(text)) == expected


def test_docstrings_are_found_without_importing() -> None:
    source = textwrap.dedent(
        '''
        """module"""
        raise SystemExit("imported!")
        class A:
            """class"""
            def f(self):
                """method"""
                x = """not documentation"""
        if True:
            async def g():
                """function"""
        add_newdoc("numpy", "abs", """call""")
        _shared_docs["apply"] = """table"""
        other("""no""")
        '''
    )
    assert list(docstrings(source.encode())) == [
        "module",
        "class",
        "method",
        "function",
        "numpy",
        "abs",
        "call",
        "table",
    ]


@pytest.mark.parametrize("source", [b'"""never closed', b'"""\x00"""', b'x = """a"""\xff\xfe', b""])
def test_a_file_that_does_not_parse_yields_nothing(source: bytes) -> None:
    assert list(docstrings(source)) == []


def test_the_key_of_a_paragraph_depends_on_its_letters_only() -> None:
    assert paragraph_key("The 1st axis, or None.") == paragraph_key("the 2st axis -- or none")
    assert paragraph_key("The first axis.") != paragraph_key("The last axis.")
