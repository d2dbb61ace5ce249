"""Which entry each row gets: docs/semantics.md, promises 1 to 4."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ctrfs.api.models import Container, ContainerFile, ContainerId, FileId
from ctrfs.tree.nodes import EntryPath
from ctrfs.tree.plan import FilePlan, Reserved, plan_containers, plan_files

HASH_A = "a" * 32
HASH_B = "b" * 32

# Names that collide with each other in every way there is: with the hash cut, with the folder
# of another, with an id appended, with a stand-in.
NAMES = ["x", "y", "x~cfile_0", "x~cfile_1", "x~", "@root", ".", "..", "∅", "", "é" * 200]
PREFIXES = ["", f"{HASH_A}-", f"{HASH_B}-", f"{HASH_A}-{HASH_B}-"]
components = st.builds("{}{}".format, st.sampled_from(PREFIXES), st.sampled_from(NAMES))
paths = st.builds(
    "{}{}".format,
    st.sampled_from(["/mnt/data/", "/mnt/data/", "/mnt/data/", "/", "", "/tmp/"]),  # noqa: S108
    st.lists(components, min_size=1, max_size=3).map("/".join),
)


def row(
    number: int, path: str, *, source: str = "user", file_id: str | None = None
) -> ContainerFile:
    return ContainerFile(
        id=FileId(file_id or f"cfile_{number}"),
        container_id=ContainerId("cntr_1"),
        path=path,
        size_bytes=1,
        created_at_s=number,
        source=source,
    )


rows_of_paths = st.lists(st.tuples(paths, st.sampled_from(["user", "assistant"])), max_size=10).map(
    lambda pairs: [row(n, path, source=source) for n, (path, source) in enumerate(pairs)]
)
entry_paths = st.lists(st.sampled_from([b"x", b"y", b"x~", b"@root"]), min_size=1, max_size=2).map(
    tuple
)


def shown(plan: FilePlan) -> dict[str, EntryPath]:
    return {file_id: planned.path for file_id, planned in plan.files.items()}


def plan_of(*rows: ContainerFile, reserved: Reserved | None = None) -> dict[str, EntryPath]:
    return shown(plan_files(rows, reserved=reserved or Reserved(), may_have_prefix=True))


@settings(max_examples=300)
@given(
    rows_of_paths, st.sets(entry_paths, max_size=3), st.sets(entry_paths, max_size=3), st.booleans()
)
def test_every_row_gets_one_entry_of_its_own_or_is_counted_as_rubbish(
    rows: list[ContainerFile],
    reserved_files: set[EntryPath],
    reserved_folders: set[EntryPath],
    may_have_prefix: bool,
) -> None:
    reserved_files -= reserved_folders
    reserved = Reserved(files=reserved_files, folders=reserved_folders)

    plan = plan_files(rows, reserved=reserved, may_have_prefix=may_have_prefix)
    places = list(shown(plan).values())
    folders = {place[:depth] for place in places for depth in range(1, len(place))}

    assert len(plan.files) + len(plan.rejected) == len(rows)
    assert len(set(places)) == len(places)
    assert not folders & set(places)
    assert not set(places) & (reserved_files | reserved_folders)
    assert not folders & reserved_files
    for place in places:
        for name in place:
            assert 0 < len(name) <= 255
            assert name not in {b".", b".."}
            assert not set(name) & {0, ord("/")}


@given(rows_of_paths)
def test_a_plan_depends_on_the_rows_alone(rows: list[ContainerFile]) -> None:
    first = plan_files(rows, reserved=Reserved(), may_have_prefix=True)
    second = plan_files(rows, reserved=Reserved(), may_have_prefix=True)

    assert shown(first) == shown(second)


def test_of_files_with_one_shown_name_the_newest_has_it() -> None:
    """Promise 3."""
    older, newer = f"{HASH_A}-report.csv", f"{HASH_B}-report.csv"

    assert plan_of(row(1, f"/mnt/data/{older}"), row(2, f"/mnt/data/{newer}")) == {
        "cfile_1": (older.encode(),),
        "cfile_2": (b"report.csv",),
    }


def test_a_made_file_of_an_uploads_shown_name_wins_if_it_is_newer() -> None:
    """Promise 3."""
    upload = f"{HASH_A}-chart.png"

    assert plan_of(
        row(1, f"/mnt/data/{upload}"), row(2, "/mnt/data/chart.png", source="assistant")
    ) == {"cfile_1": (upload.encode(),), "cfile_2": (b"chart.png",)}


def test_a_made_file_that_is_older_shows_with_its_id() -> None:
    """Promise 3: it has no other stored name to show under."""
    assert plan_of(
        row(1, "/mnt/data/chart.png", source="assistant"), row(2, f"/mnt/data/{HASH_A}-chart.png")
    ) == {"cfile_1": (b"chart.png~cfile_1",), "cfile_2": (b"chart.png",)}


def test_of_rows_of_one_stored_path_the_older_shows_with_its_id() -> None:
    """Promise 3."""
    path = f"/mnt/data/{HASH_A}-a"

    assert plan_of(row(1, path), row(2, path)) == {
        "cfile_1": (b"a~cfile_1",),
        "cfile_2": (b"a",),
    }


def test_ids_that_begin_alike_are_shown_whole() -> None:
    """Promise 3."""
    start = "cfile_0123456789"
    rows = [row(n, "/mnt/data/a", source="assistant", file_id=f"{start}{n}") for n in (1, 2, 3)]

    assert set(plan_of(*rows).values()) == {
        (b"a",),
        (b"a~cfile_0123456",),
        (f"a~{start}1".encode(),),
    }


def test_a_file_where_others_have_a_folder_shows_under_another_name() -> None:
    """Promise 3."""
    assert plan_of(
        row(1, "/mnt/data/x/inner", source="assistant"), row(2, "/mnt/data/x", source="assistant")
    ) == {"cfile_1": (b"x", b"inner"), "cfile_2": (b"x~cfile_2",)}


def test_a_row_never_takes_the_place_of_an_entry_of_this_machine() -> None:
    reserved = Reserved(files={(b"x",)}, folders={(b"y",)})

    assert plan_of(
        row(1, "/mnt/data/x/inner", source="assistant"),
        row(2, "/mnt/data/x", source="assistant"),
        row(3, "/mnt/data/y", source="assistant"),
        reserved=reserved,
    ) == {
        "cfile_1": (b"x~", b"inner"),
        "cfile_2": (b"x~cfile_2",),
        "cfile_3": (b"y~cfile_3",),
    }


def test_a_row_that_names_no_file_is_rejected_with_its_reason() -> None:
    """Promise 4."""
    plan = plan_files(
        [row(1, "/mnt/data/"), row(2, "/mnt/data/a")], reserved=Reserved(), may_have_prefix=True
    )

    assert shown(plan) == {"cfile_2": (b"a",)}
    assert [rejected.excerpt for rejected in plan.rejected] == ["'/mnt/data/'"]
    assert plan.rejected[0].reason


def container(number: int, name: str, *, status: str = "running") -> Container:
    return Container(
        id=ContainerId(f"cntr_{number:08x}ffff"), name=name, created_at_s=number, status=status
    )


def test_of_containers_with_one_name_the_oldest_keeps_it() -> None:
    """Promise 2: in whatever order they are listed."""
    names = plan_containers(
        [container(2, "a"), container(1, "a"), container(3, "a")], show_expired=False, reserved=()
    )

    assert sorted(names.values()) == [b"a", b"a~cntr_00000002", b"a~cntr_00000003"]
    assert names[ContainerId("cntr_00000001ffff")] == b"a"


def test_expired_and_deleted_containers_are_hidden_and_odd_ones_shown() -> None:
    """Promise 1."""
    rows = [
        container(1, "expired", status="expired"),
        container(2, "deleted", status="deleted"),
        container(3, "odd", status="hibernating"),
    ]

    hidden = plan_containers(rows, show_expired=False, reserved=())
    all_shown = plan_containers(rows, show_expired=True, reserved=())

    assert list(hidden.values()) == [b"odd"]
    assert sorted(all_shown.values()) == [b"expired", b"odd"]


@given(
    st.lists(st.sampled_from(["a", "", ".", "..", "/", "a/b", ".ctrfs", "x" * 300]), max_size=8),
)
def test_every_container_gets_a_name_of_its_own(names: list[str]) -> None:
    """Promise 2."""
    rows = [container(n, name) for n, name in enumerate(names)]

    planned = plan_containers(rows, show_expired=False, reserved={b".ctrfs"})

    assert len(set(planned.values())) == len(rows)
    for name in planned.values():
        assert 0 < len(name) <= 255
        assert b"/" not in name
        assert name not in {b".", b"..", b".ctrfs"}
