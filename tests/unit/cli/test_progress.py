from __future__ import annotations

import pytest

from ctrfs.cli.progress import progress_bar


def test_the_bar_counts_in_the_units_of_all_other_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress_bar(4 * 1024 * 1024) as advance:
        advance(1024 * 1024)
        advance(3 * 1024 * 1024)

    shown = capsys.readouterr().err
    assert "4.0/4.0 MiB" in shown
    assert "iB/s" in shown
    assert "kB" not in shown
    assert "MB" not in shown
