"""How the conformance suites judge, count and report."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scripts.conformance import fio, stress
from scripts.conformance.__main__ import why_refused
from scripts.conformance.arena import Arena, Ended, judged
from scripts.conformance.results import (
    Case,
    Outcome,
    SuiteResult,
    as_json,
    failed,
    passed,
    skipped,
    table,
)
from scripts.conformance.suites import SUITES, Suite, run


def result(*cases: Case, pinned: int | None) -> SuiteResult:
    return SuiteResult(name="suite", cases=cases, pinned=pinned, requests={"list_files": 3})


def nothing_to_say(_: Ended) -> str | None:
    return None


@pytest.mark.parametrize(
    ("cases", "pinned", "complaint"),
    [
        ([passed("a"), skipped("b", "why")], 1, None),
        ([passed("a")], None, None),
        ([passed("a"), failed("b", "why")], 1, "suite: 1 failed"),
        ([passed("a")], 2, "suite: 1 passed, of which there must be 2"),
        ([passed("a"), passed("b")], 1, "suite: 2 passed; raise the pinned count of 1"),
    ],
)
def test_a_suite_must_pass_exactly_as_often_as_pinned(
    cases: list[Case], pinned: int | None, complaint: str | None
) -> None:
    assert result(*cases, pinned=pinned).complaint == complaint


@pytest.mark.parametrize(
    ("code", "words", "detail"),
    [
        (None, "still at it", "did not end within 5 s: still at it"),
        (3, "first\nlast\n", "exit code 3: first | last"),
        (0, "bad", "it says bad"),
    ],
)
def test_a_program_that_hangs_fails_or_says_so_is_a_failed_case(
    code: int | None, words: str, detail: str
) -> None:
    ended = Ended(code=code, words=words)
    case = judged("case", ended, lambda each: f"it says {each.words}", limit_s=5)
    assert case == failed("case", detail)


def test_a_program_that_ends_well_and_says_nothing_bad_passes() -> None:
    assert judged("a", Ended(code=0, words=""), nothing_to_say, limit_s=5) == passed("a")


def test_the_table_shows_counts_requests_and_the_reason_of_each_skip_and_failure() -> None:
    shown = table([result(passed("a"), skipped("b", "no links"), failed("c", "broke"), pinned=1)])

    assert "suite       1       1       1        1         3        0" in shown
    assert "suite b: no links" in shown
    assert "suite c: broke" in shown
    assert shown.splitlines()[-1] == "suite: 1 failed"


def test_the_json_holds_every_case() -> None:
    rows = as_json([result(passed("a"), skipped("b", "why"), pinned=1)])
    assert rows[0]["cases"] == [
        {"name": "a", "outcome": "passed", "detail": ""},
        {"name": "b", "outcome": "skipped", "detail": "why"},
    ]


def test_operations_of_a_stressor_are_found_in_its_report() -> None:
    words = "stress-ng: metrc: [7] lockofd      44  4.02\nstress-ng: metrc: [7] lock  0  4.02\n"
    assert stress.bogo_operations(words, "lockofd") == 44
    assert stress.bogo_operations(words, "lock") == 0
    assert stress.bogo_operations(words, "hdd") is None


def test_no_stressor_is_both_run_and_skipped() -> None:
    assert not stress.RUN.keys() & stress.SKIPPED.keys()
    assert all(stress.SKIPPED.values())


def test_a_verification_that_read_nothing_is_none() -> None:
    assert fio.complaint_of_no_verification(Ended(code=0, words="  WRITE: bw=1\n")) is not None
    assert fio.complaint_of_no_verification(Ended(code=0, words="   READ: bw=1\n")) is None


def test_every_suite_has_a_pinned_count() -> None:
    assert [suite.name for suite in SUITES if "through" not in suite.pinned] == []


@pytest.mark.parametrize(
    ("is_optional", "outcome"), [(True, Outcome.SKIPPED), (False, Outcome.FAILED)]
)
def test_a_missing_program_is_told_and_is_a_skip_only_where_that_is_allowed(
    is_optional: bool, outcome: Outcome
) -> None:
    suite = Suite(
        name="none",
        package="none",
        program="no-such-program",
        play=lambda _: iter(()),
        pinned={"through": 5},
        is_optional=is_optional,
    )
    shown = run(suite, write="through")

    assert [case.outcome for case in shown.cases] == [outcome]
    assert "no-such-program is not installed" in shown.cases[0].detail


@pytest.mark.mounted
def test_a_way_of_writing_that_does_not_exist_is_refused_in_the_words_of_the_mount() -> None:
    assert why_refused("back") is None
    reason = why_refused("later")
    assert reason is not None
    assert "through" in reason


@pytest.mark.mounted
def test_a_program_that_hangs_on_the_mount_is_ended_and_the_suite_goes_on() -> None:
    with Arena("work") as arena:
        # A stopped daemon answers nobody: the reader cannot even be killed.
        (arena.place / "file").write_bytes(b"x")
        os.kill(arena.mount.pid, 19)

        ended = arena.run("stat", arena.place / "other", cwd=Path("/"), limit_s=1)

        assert ended.code is None
        assert arena.run("cat", arena.place / "file", cwd=Path("/"), limit_s=20).words == "x"
        assert all(case.outcome is Outcome.PASSED for case in arena.last_cases())
