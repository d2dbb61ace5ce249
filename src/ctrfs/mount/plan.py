"""What one ``ctrfs mount`` is to do: everything read and checked before anything is done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ctrfs.config import ApiConfig
from ctrfs.mount.options import MountOptions, parse_options
from ctrfs.mount.places import state_base
from ctrfs.mount.preflight import (
    check_fuse,
    check_mountpoint,
    prepare_mountpoint,
    resolve_mountpoint,
)
from ctrfs.mount.source import Source, api_config_for, parse_source, state_binding

# Beyond the deadline of the first request: imports, the local service, the kernel.
_START_MARGIN_S: Final = 30.0


class MountPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Source, place and settings of one mount."""

    source: Source
    mountpoint: Path
    options: MountOptions
    api: ApiConfig
    """For ``local:`` without the socket, which exists once its service runs."""
    state_base: Path
    binding: str
    """What is mounted, for the name of its state directory."""

    @property
    def log_file(self) -> Path:
        """Where the daemon logs."""
        if self.options.log_file is not None:
            return self.options.log_file
        digest = hashlib.blake2b(os.fsencode(self.mountpoint), digest_size=4).hexdigest()
        return self.state_base / "logs" / f"{self.mountpoint.name}-{digest}.log"

    @property
    def start_timeout_s(self) -> float:
        """How long the start may take."""
        return 2 * self.api.metadata_timeout_s + _START_MARGIN_S


def plan_mount(
    source_text: str,
    mountpoint_text: str,
    option_texts: Sequence[str],
    *,
    environment: Mapping[str, str],
) -> MountPlan:
    """Read what the user wants; changes nothing.

    Raises:
        ConfigError: The source, an option or the environment cannot be used.
        MountError: The mount point cannot be resolved.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    options = parse_options(option_texts, uid=os.getuid(), gid=os.getgid(), umask=umask)
    source = parse_source(source_text)
    api = api_config_for(source, options, environment=environment)
    return MountPlan(
        source=source,
        mountpoint=resolve_mountpoint(mountpoint_text),
        options=options,
        api=api,
        state_base=options.state_dir or state_base(),
        binding=state_binding(source, api),
    )


def check_place(plan: MountPlan, *, clears_dead_mount: bool = True) -> None:
    """Make sure that the mount can be made; clears a dead mount of ours at its place.

    Raises:
        MountError: It cannot; the text is for the user.
    """
    options = plan.options
    check = prepare_mountpoint if clears_dead_mount else check_mountpoint
    check(plan.mountpoint, nonempty=options.nonempty)
    check_fuse(allow_other=options.allow_other or options.allow_root)
