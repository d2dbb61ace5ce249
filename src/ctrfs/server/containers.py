"""The four operations on containers."""

from __future__ import annotations

from collections.abc import Sequence

from ctrfs.server import bodies, checks, naming, pages, refusals
from ctrfs.server.files import Files
from ctrfs.server.messages import Request, Response, json_response, read_whole
from ctrfs.server.records import RUNNING, ContainerRecord
from ctrfs.server.service import Service
from ctrfs.units import NS_PER_S


class Containers:
    """Lists, creates, shows and deletes containers."""

    def __init__(self, service: Service, files: Files) -> None:
        self._service = service
        self._files = files

    async def list(self, request: Request) -> Response:
        """Answer one page of containers; all show the present as their last activity."""
        query = checks.page_query(request.query)
        cursor = pages.cursor(self._service.behaviour, query.after)
        if cursor.is_empty_page:
            return json_response(cursor.empty_page())
        self._service.expire_due()
        name = request.query.get("name")
        now_ns = self._service.clock.wall_ns()
        containers = self._service.state.containers()
        if query.newest_first:
            containers.reverse()
        if cursor.after is not None:
            containers = containers[_position_after(containers, cursor.after) :]
        containers = [each for each in containers if each.is_listed(now_ns)]
        if name:
            containers = [each for each in containers if each.name == name]
        shown = containers[: query.limit]
        return json_response(
            bodies.list_body(
                [bodies.container_body(each, last_active_at_ns=now_ns) for each in shown],
                first_id=shown[0].id if shown else None,
                has_more=len(containers) > len(shown),
                last_id=shown[-1].id if shown else None,
            )
        )

    async def create(self, request: Request) -> Response:
        """Create a container, with copies of files of the account's store."""
        wanted = checks.container_creation(checks.json_object(await read_whole(request)))
        sources = [self._files.stored(file_id) for file_id in wanted.file_ids]
        container = self._add(wanted)
        for source in sources:
            self._files.copy_into(container.id, source)
        await self._service.state.flush()
        return json_response(_body(container))

    async def retrieve(self, request: Request) -> Response:
        """Answer one container, expired or not."""
        return json_response(_body(self._service.known_container(request.parts[1])))

    async def delete(self, request: Request) -> Response:
        """Delete a container with all its files."""
        container = self._service.known_container(request.parts[1])
        lag_ns = int(self._service.behaviour.delete_lag_s * NS_PER_S)
        listed_until_ns = self._service.clock.wall_ns() + lag_ns
        self._service.state.delete_container(container, listed_until_ns=listed_until_ns)
        await self._service.state.flush()
        return json_response(bodies.deletion_body(container.id, "container"))

    def _add(self, wanted: checks.ContainerCreation) -> ContainerRecord:
        now_ns = self._service.clock.wall_ns()
        behaviour = self._service.behaviour
        container = ContainerRecord(
            sequence=0,
            id=naming.new_container_id(behaviour, now_ns // NS_PER_S),
            name=wanted.name,
            created_at_ns=now_ns,
            ready_at_ns=now_ns + int(behaviour.ready_delay_s * NS_PER_S),
            status=RUNNING,
            minutes=wanted.minutes,
            last_active_at_ns=now_ns,
            memory_limit=wanted.memory_limit,
            network_policy=wanted.network_policy,
        )
        self._service.state.add_container(container)
        return container


def _position_after(containers: Sequence[ContainerRecord], after: str) -> int:
    for index, each in enumerate(containers):
        if each.id == after:
            return index + 1
    raise refusals.unknown_cursor(after)


def _body(container: ContainerRecord) -> str:
    return bodies.container_body(container, last_active_at_ns=container.last_active_at_ns)
