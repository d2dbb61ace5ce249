"""Those who carry out changes, and how they know each other."""

from __future__ import annotations

import msgspec

from ctrfs.config import WriteMode
from ctrfs.fs.creating import Creator
from ctrfs.fs.deleting import Deleter
from ctrfs.fs.discarding import Discarder
from ctrfs.fs.doubts import Doubts
from ctrfs.fs.draining import Drainer
from ctrfs.fs.holding import Holder
from ctrfs.fs.moving import Mover
from ctrfs.fs.moving_folders import FolderMover
from ctrfs.fs.parts import Parts
from ctrfs.fs.postponing import PostponedDeletes
from ctrfs.fs.read_ahead import ReadAhead
from ctrfs.fs.recording import Recorder
from ctrfs.fs.removing import Remover
from ctrfs.fs.restoring import Finisher, Restorer
from ctrfs.fs.retrying import BackgroundRetries
from ctrfs.fs.saving import Saver
from ctrfs.fs.storing import Storer
from ctrfs.fs.strays import Strays
from ctrfs.fs.syncing import Syncer


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """One of each kind for a mount; holds them, decides nothing."""

    recorder: Recorder
    holder: Holder
    saver: Saver
    remover: Remover
    mover: Mover
    folder_mover: FolderMover
    creator: Creator
    discarder: Discarder
    drainer: Drainer
    syncer: Syncer
    postponed: PostponedDeletes
    retries: BackgroundRetries
    restorer: Restorer
    read_ahead: ReadAhead

    @classmethod
    def build(cls, parts: Parts) -> Workers:
        """Make all of them; reads the journal, sends nothing."""
        recorder = Recorder(parts)
        holder = Holder(parts)
        deleter = Deleter(parts, recorder)
        postponed = PostponedDeletes(parts, recorder=recorder, deleter=deleter)
        if parts.config.write_mode is WriteMode.BACK:
            deleter.put_off = postponed.add
        doubts = Doubts(parts, deleter)
        strays = Strays(parts, recorder=recorder, deleter=deleter, doubts=doubts)
        storer = Storer(parts, deleter=deleter, doubts=doubts, strays=strays)
        saver = Saver(parts, recorder=recorder, deleter=deleter, doubts=doubts, storer=storer)
        remover = Remover(
            parts,
            saver=saver,
            recorder=recorder,
            deleter=deleter,
            doubts=doubts,
            postponed=postponed,
        )
        mover = Mover(
            parts, saver=saver, remover=remover, holder=holder, recorder=recorder, deleter=deleter
        )
        finisher = Finisher(
            parts, recorder=recorder, deleter=deleter, mover=mover, remover=remover, holder=holder
        )
        retries = BackgroundRetries(
            parts,
            saver=saver,
            recorder=recorder,
            deleter=deleter,
            finisher=finisher,
            strays=strays,
        )
        return cls(
            recorder=recorder,
            holder=holder,
            saver=saver,
            remover=remover,
            mover=mover,
            folder_mover=FolderMover(
                parts, saver=saver, holder=holder, recorder=recorder, deleter=deleter
            ),
            creator=Creator(parts),
            discarder=Discarder(parts, remover),
            drainer=Drainer(
                parts,
                saver=saver,
                recorder=recorder,
                deleter=deleter,
                postponed=postponed,
                strays=strays,
            ),
            syncer=Syncer(
                parts, saver=saver, recorder=recorder, deleter=deleter, postponed=postponed
            ),
            postponed=postponed,
            retries=retries,
            restorer=Restorer(parts, on_restored=retries.begin),
            read_ahead=ReadAhead(parts),
        )
