"""curl as the limit: the same bytes from the same service, without any file system."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from scripts.bench.corpus import BIG, FILES_PER_FOLDER, Corpus
from scripts.bench.servers import API, Servers
from scripts.bench.stores import ServiceStore
from scripts.bench.tasks import GREPPED, LIMIT_S, RANDOM_BYTES, Record
from tests.support.service import TEST_KEY

AT_ONCE: Final = 16


def measure(task: str, servers: Servers, corpus: Corpus, port: int, record: Record) -> None:
    """Measure what curl can do of a task; nothing for tasks that it has no part in."""
    store = servers.running[API].store
    assert isinstance(store, ServiceStore)
    address = f"http://127.0.0.1:{port}/v1"
    if task == "grep":
        paths = [path for folder in GREPPED for path in store.content_paths(folder).values()]
        assert len(paths) == len(GREPPED) * FILES_PER_FOLDER
        seconds = _curl(*(f"{address}{path}" for path in paths))
        record("grep -r cold", len(paths) / seconds)
    elif task == "read":
        paths_of_big = store.content_paths(BIG)
        large = corpus.folders[BIG]["large.bin"]
        seconds = _curl(f"{address}{paths_of_big['large.bin']}")
        record("read 256 MiB cold", large.size_bytes / 1e6 / seconds)
        seconds = _curl(f"{address}{paths_of_big['giant.bin']}", span=RANDOM_BYTES)
        record("first 4 KiB of a big file", 1000 * seconds)


def _curl(*addresses: str, span: int | None = None) -> float:
    """Return the seconds that curl takes for these addresses, many at once."""
    lines = [f'header = "Authorization: Bearer {TEST_KEY}"', "silent", "fail"]
    if span is not None:
        lines.append(f'range = "0-{span - 1}"')
    for address in addresses:
        lines += [f'url = "{address}"', f'output = "{Path("/dev/null")}"']
    began_s = time.perf_counter()
    subprocess.run(
        ["curl", "--parallel", "--parallel-max", str(AT_ONCE), "--config", "-"],
        input="\n".join(lines),
        text=True,
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    return time.perf_counter() - began_s
