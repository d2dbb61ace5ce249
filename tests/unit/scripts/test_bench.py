"""The pure parts of the bench, and one run of it that is as small as can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts.bench.__main__ import main
from scripts.bench.report import REAL, Results, number, ratio, requests_table, table, title


def results() -> Results:
    made = Results()
    for value in (90.0, 100.0, 400.0):
        made.add("20", "grep -r cold", "ctrfs", value)
    made.add("20", "grep -r cold", "sshfs", 10.0)
    made.add("20", "grep -r cold", "rclone", 20.0)
    made.add("20", "grep -r cold", "curl", 1000.0)
    made.add("20", "mount + first ls", "ctrfs", 0.5)
    made.add("20", "mount + first ls", "sshfs", 0.25)
    return made


def test_the_middle_of_the_samples_counts() -> None:
    assert results().median("20", "grep -r cold", "ctrfs") == 100.0
    assert results().median("0", "grep -r cold", "ctrfs") is None


def test_a_ratio_says_how_many_times_better_whichever_way_is_better() -> None:
    assert ratio("grep -r cold", 100.0, 20.0) == 5.0
    assert ratio("mount + first ls", 0.5, 0.25) == 0.5


def test_the_table_compares_with_the_best_peer_and_not_with_the_limit() -> None:
    lines = table(results(), ["ctrfs", "rclone", "sshfs", "curl"], frozenset({"ctrfs"}))
    assert "| grep -r cold, files/s | 100 | 20 | 10 | 1000 | 5.0 | 10 missed |" in lines
    assert "| mount + first ls, s | 0.5 |  | 0.25 |  | 0.5 | 1 missed |" in lines


def test_figures_have_three_digits_that_count() -> None:
    assert [number(each) for each in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1234"]
    assert title("20") == "### 20 ms round trip"
    assert "real service" in title(REAL)


@pytest.mark.mounted
@pytest.mark.slow
def test_the_smallest_run_measures_ctrfs_in_both_ways_of_writing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", "1", "--rtt", "0", "--large", "4194304", "--giant", "8388608"]
    words += ["--peers", "ctrfs,ctrfs-back", "--tasks", "grep,write,rm"]
    assert main([*words, "--json", str(tmp_path / "results.json")]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["failures"] == []
    assert {(each["figure"], each["mode"]) for each in found["samples"]} >= {
        ("grep -r cold", "ctrfs"),
        ("cp -r in, durable", "ctrfs"),
        ("cp -r in, durable", "ctrfs-back"),
        ("rm -r of 200", "ctrfs-back"),
    }
    assert found["requests"]["0 ms, rm, ctrfs-back"]["delete_container"] == 1
    assert "### 0 ms round trip" in capsys.readouterr().out


def test_the_requests_of_each_task_are_shown_by_kind() -> None:
    results = Results()
    results.requests["20 ms, grep, ctrfs"] = {"list_files": 4, "file_content": 400}
    results.requests["20 ms, names, ctrfs-back"] = {}

    assert requests_table(results)[2:] == [
        "| 20 ms, grep, ctrfs | 400 file_content, 4 list_files |",
        "",
    ]
    assert requests_table(Results()) == []
