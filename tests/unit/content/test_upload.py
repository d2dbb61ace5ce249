from __future__ import annotations

from collections.abc import Container

import pytest
import trio
import trio.testing
from tests.unit.content.fake_service import (
    CONTAINER,
    FILE,
    FakeService,
    Transfer,
    digest_of,
    identity_of,
)
from typing_extensions import override

from ctrfs.api.models import ContainerFile, ContainerId, FileId, Listing
from ctrfs.api.protocol import UploadBody
from ctrfs.config import ContentConfig
from ctrfs.content.identity import ContentIdentity
from ctrfs.content.outgoing import Outgoing
from ctrfs.content.upload import DOUBTS_MAX, Uploader, UploadKey
from ctrfs.errors import (
    RemoteBusyError,
    RemoteNotFoundError,
    RemoteProtocolError,
    RemoteStalledError,
    RemoteUnavailableError,
    RemoteUncertainError,
)

CONTENT = b"This is a test file content for container testing."
DIGEST = "bfe940181cd9f2193931fd77047b66bb"
NEW = FileId("cfile_new")


class SlowService(FakeService):
    """Takes one upload only once ``may_go_on`` is set."""

    def __init__(self, *, slow_name: str) -> None:
        super().__init__()
        self.may_go_on = trio.Event()
        self._slow_name = slow_name

    @override
    async def create_file(
        self, container_id: ContainerId, *, name: str, body: UploadBody
    ) -> ContainerFile:
        if name == self._slow_name:
            await self.may_go_on.wait()
        return await super().create_file(container_id, name=name, body=body)


def outgoing() -> Outgoing:
    def settle(_identity: ContentIdentity) -> None:
        raise AssertionError("settling is the caller's business")

    body = UploadBody(size_bytes=len(CONTENT), open=lambda: iter([CONTENT]))
    return Outgoing(size_bytes=len(CONTENT), digest=digest_of(CONTENT), body=body, settle=settle)


def stored(
    path: str, *, file_id: FileId = NEW, size_bytes: int | None = 50, source: str = "user"
) -> ContainerFile:
    return ContainerFile(
        id=file_id,
        container_id=CONTAINER,
        path=path,
        size_bytes=size_bytes,
        created_at_s=1,
        source=source,
    )


STORED = stored(f"/mnt/data/plots/{DIGEST}-fig.png")
NOTHING: Listing[ContainerFile] = Listing(items=())


async def send(
    service: FakeService,
    *,
    uploader: Uploader | None = None,
    known: Container[FileId] = (FILE,),
    look_first_s: float | None = None,
    stored_name: str = "plots/fig.png",
) -> ContainerFile:
    return await (uploader or Uploader(service)).send(
        CONTAINER,
        stored_name=stored_name,
        outgoing=outgoing(),
        is_known=lambda file_id: file_id in known,
        look_first_s=look_first_s,
    )


async def test_an_upload_that_is_answered_is_sent_once() -> None:
    service = FakeService()
    service.upload_answers = [stored(f"/mnt/data/plots/{DIGEST}-fig.png")]

    assert (await send(service)).id == NEW
    assert service.uploads == [("plots/fig.png", CONTENT)]


@pytest.mark.parametrize(
    "path",
    [f"/mnt/data/plots/{DIGEST}-fig.png", f"/mnt/data/{DIGEST}-plots/fig.png"],
)
async def test_an_upload_whose_answer_got_lost_is_found_by_its_hash(path: str) -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [Listing(items=(stored(path),))]

    assert (await send(service)).path == path
    assert len(service.uploads) == 1


async def test_an_upload_without_hash_in_its_path_is_known_by_its_bytes() -> None:
    path = "/mnt/data/plots/fig.png"
    service = FakeService(Transfer(content=CONTENT))
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [Listing(items=(stored(path),))]

    assert (await send(service)).path == path


@pytest.mark.parametrize(
    "other",
    [
        stored(f"/mnt/data/plots/{DIGEST}-fig.png", file_id=FILE),
        stored(f"/mnt/data/plots/{DIGEST}-fig.png", size_bytes=49),
        stored(f"/mnt/data/plots/{DIGEST}-other.png"),
        stored(f"/mnt/data/plots/{'0' * 32}-fig.png"),
        stored("/mnt/data/plots/fig.png"),
        # The same bytes outside the folder may be somebody else's, whatever a server makes of slashes.
        stored(f"/mnt/data/{DIGEST}-fig.png"),
    ],
    ids=["known", "other-size", "other-name", "other-hash", "other-bytes", "other-folder"],
)
async def test_no_file_but_ours_is_taken_for_the_upload(
    autojump_clock: trio.testing.MockClock, other: ContainerFile
) -> None:
    service = FakeService(Transfer(content=CONTENT[::-1]))
    service.upload_answers = [RemoteUncertainError("no answer"), stored("/mnt/data/sent-again")]
    service.listings = [Listing(items=(other,))]

    assert (await send(service)).path == "/mnt/data/sent-again"
    assert len(service.uploads) == 2


async def test_a_file_made_inside_the_container_is_not_taken_for_the_upload(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService(Transfer(content=CONTENT))
    service.upload_answers = [RemoteUncertainError("no answer"), stored("/mnt/data/sent-again")]
    service.listings = [Listing(items=(stored("/mnt/data/plots/fig.png", source="assistant"),))]

    assert (await send(service)).path == "/mnt/data/sent-again"


async def test_an_upload_is_found_though_the_listing_names_no_lengths() -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [Listing(items=(stored(STORED.path, size_bytes=None),))]

    assert (await send(service)).id == NEW
    assert len(service.uploads) == 1


async def test_an_upload_is_sent_six_times_at_most(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError(str(number)) for number in range(9)]
    service.listings = [NOTHING]

    with pytest.raises(RemoteUncertainError, match="5"):
        await send(service)
    assert len(service.uploads) == 6


async def test_a_whole_send_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError(str(number)) for number in range(9)]
    service.listings = [NOTHING]

    with pytest.raises(RemoteUncertainError, match="10 s"):
        await send(service, uploader=Uploader(service, ContentConfig(transfer_timeout_s=10.0)))
    assert trio.current_time() == 10.0
    assert len(service.uploads) == 2


async def test_an_upload_that_a_lagging_listing_shows_seconds_later_is_not_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [NOTHING, NOTHING, Listing(items=(STORED,))]

    assert (await send(service)).id == NEW
    assert service.looks_at_s == [0.0, 2.0, 7.0]
    assert len(service.uploads) == 1


async def test_a_look_that_fails_is_made_again(autojump_clock: trio.testing.MockClock) -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [*[RemoteUnavailableError("no route")] * 4, Listing(items=(STORED,))]

    assert (await send(service)).id == NEW
    assert len(service.uploads) == 1


async def test_an_upload_that_cannot_be_looked_for_is_not_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService()
    uncertain = RemoteUncertainError("no answer")
    service.upload_answers = [uncertain]
    service.listings = [NOTHING, RemoteUnavailableError("no route")]

    with pytest.raises(RemoteUncertainError) as caught:
        await send(service)
    assert caught.value is uncertain
    assert len(service.uploads) == 1


async def test_an_upload_into_a_container_that_is_gone_ends_at_once() -> None:
    service = FakeService()
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [RemoteNotFoundError("no such container")]

    with pytest.raises(RemoteNotFoundError):
        await send(service)


async def test_an_upload_of_an_earlier_mount_is_looked_for_before_anything_is_sent() -> None:
    service = FakeService()
    service.listings = [Listing(items=(STORED,))]

    assert (await send(service, look_first_s=0.0)).id == NEW
    assert service.uploads == []


async def test_an_upload_that_no_earlier_mount_made_is_sent_after_one_look() -> None:
    service = FakeService()
    service.upload_answers = [STORED]
    service.listings = [NOTHING]

    assert (await send(service, look_first_s=0.0)).id == NEW
    assert (len(service.looks_at_s), len(service.uploads)) == (1, 1)


async def test_nothing_is_sent_while_it_cannot_be_seen_whether_an_earlier_mount_sent_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService()
    service.listings = [RemoteUnavailableError("no route")]

    with pytest.raises(RemoteUnavailableError, match="no route"):
        await send(service, look_first_s=0.0)
    assert service.uploads == []


async def test_the_next_send_looks_for_an_upload_whose_outcome_stayed_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = FakeService()
    uploader = Uploader(service)
    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [RemoteUnavailableError("no route")]
    with pytest.raises(RemoteUncertainError):
        await send(service, uploader=uploader)
    service.listings = [Listing(items=(STORED,))]

    # By now the tree shows the stray file, but nobody knew it when it was sent.
    assert (await send(service, uploader=uploader, known={FILE, NEW})).id == NEW
    assert len(service.uploads) == 1


async def test_the_next_send_looks_for_an_upload_that_was_cancelled() -> None:
    service = FakeService()
    uploader = Uploader(service)
    service.upload_answers = [STORED]
    with trio.CancelScope() as scope:
        scope.cancel()
        await send(service, uploader=uploader)
    service.listings = [Listing(items=(STORED,))]

    assert (await send(service, uploader=uploader)).id == NEW
    assert service.uploads == []


async def leave_in_doubt(service: FakeService, uploader: Uploader, count: int) -> None:
    """Let ``count`` uploads, to names that are numbers, end without an answer or a look."""
    service.upload_answers = [RemoteUncertainError("no answer") for _ in range(count)]
    service.listings = [RemoteStalledError("silence")]
    for number in range(count):
        with pytest.raises(RemoteUncertainError):
            await send(service, uploader=uploader, stored_name=f"{number}.png")


def is_open(uploader: Uploader, stored_name: str) -> bool:
    return uploader.is_open(UploadKey(CONTAINER, stored_name, DIGEST))


async def test_a_lost_answer_is_looked_for_though_very_many_others_are_in_doubt_by_then(
    nursery: trio.Nursery,
) -> None:
    service = SlowService(slow_name="plots/fig.png")
    uploader = Uploader(service)
    found: list[ContainerFile] = []

    async def send_slowly() -> None:
        found.append(await send(service, uploader=uploader))

    nursery.start_soon(send_slowly)
    await trio.testing.wait_all_tasks_blocked()
    await leave_in_doubt(service, uploader, DOUBTS_MAX)
    assert is_open(uploader, "plots/fig.png")

    service.upload_answers = [RemoteUncertainError("no answer")]
    service.listings = [Listing(items=(STORED,))]
    service.may_go_on.set()
    await trio.testing.wait_all_tasks_blocked()

    assert found == [STORED]


async def test_of_very_many_uploads_in_doubt_the_oldest_are_forgotten() -> None:
    service = FakeService()
    uploader = Uploader(service)

    await leave_in_doubt(service, uploader, DOUBTS_MAX + 1)

    assert not is_open(uploader, "0.png")
    assert is_open(uploader, "1.png")
    assert is_open(uploader, f"{DOUBTS_MAX}.png")


async def test_a_refused_upload_leaves_no_doubt() -> None:
    service = FakeService()
    uploader = Uploader(service)
    service.upload_answers = [RemoteBusyError("later"), STORED]
    with pytest.raises(RemoteBusyError):
        await send(service, uploader=uploader)

    await send(service, uploader=uploader)
    assert service.looks_at_s == []


async def test_another_length_than_was_sent_is_an_error() -> None:
    service = FakeService()
    service.upload_answers = [stored("/mnt/data/x", size_bytes=49)]

    with pytest.raises(RemoteProtocolError, match="49"):
        await send(service)


async def test_an_answer_without_length_is_believed() -> None:
    service = FakeService()
    service.upload_answers = [stored("/mnt/data/x", size_bytes=None)]

    assert (await send(service)).id == NEW


def test_the_digest_is_the_one_the_service_puts_into_names() -> None:
    assert identity_of(CONTENT).digest == DIGEST


def test_an_upload_is_named_in_the_log_by_where_it_was_to_go() -> None:
    upload = UploadKey(ContainerId("cntr_1"), "plots/ü\x1b.png", "0" * 32)

    assert str(upload) == r"the upload of 'plots/\xfc\x1b.png' to cntr_1"
