from __future__ import annotations

import traceback

import pytest

from ctrfs.api.redaction import Redactor, escaped
from ctrfs.config import Secret

KEY = "sk-test-0123456789abcdef"
REDACTOR = Redactor(Secret(KEY))


def test_the_key_is_masked_wherever_it_stands() -> None:
    assert REDACTOR.text(f"a{KEY}b {KEY}") == "a[key]b [key]"


def test_a_key_of_any_shape_is_masked() -> None:
    assert Redactor(Secret("7f8e9d+/=(x")).text("api-key: 7f8e9d+/=(x!") == "api-key: [key]!"


@pytest.mark.parametrize(
    "shown", ["sk-proj-abcd1234", "sk-abc***wxyz", "sk-ab…yz12", "sk-proj-****************cdef"]
)
def test_what_looks_like_a_key_is_masked_also_where_the_service_has_shortened_it(
    shown: str,
) -> None:
    text = REDACTOR.text(f"Incorrect API key provided: {shown}. You can find")

    assert shown[:6] not in text
    assert shown[-4:] not in text


def test_words_that_only_begin_like_a_key_stay() -> None:
    assert REDACTOR.text("risk-free task-list sk-a") == "risk-free task-list sk-a"


def test_without_a_key_nothing_else_is_changed() -> None:
    assert Redactor(None).text("plain") == "plain"
    assert Redactor(Secret("")).text("plain") == "plain"


def test_the_key_is_masked_before_a_line_is_cut() -> None:
    line = REDACTOR.line("x" * 10 + KEY, characters_max=20)

    assert line == "x" * 10 + "[key]"


def test_a_line_has_no_control_characters_and_is_not_too_long() -> None:
    line = REDACTOR.line("one\ntwo\x1b[31m\u2028\ud800" + "x" * 100, characters_max=40)

    assert line.startswith("one\\ntwo\\x1b[31m\\u2028\\ud800xxx")
    assert len(line) == 40
    assert line.endswith("…")


def test_printable_text_is_not_escaped() -> None:
    assert escaped("Grüße 世界 \\ ok") == "Grüße 世界 \\ ok"


def test_a_chain_of_exceptions_loses_the_key_in_all_its_links() -> None:
    outer = ValueError("outer", KEY)
    outer.__cause__ = KeyError(f"middle {KEY}")
    outer.__cause__.__context__ = RuntimeError(f"inner {KEY}")
    outer.__cause__.__context__.__context__ = outer

    REDACTOR.exception(outer)

    assert KEY not in "".join(traceback.format_exception(outer))
    assert "middle" in str(outer.__cause__)
