"""What can go wrong, in the words of the file system.

Raised by every floor below ``ctrfs.fuse``; turned into errno values only in
``ctrfs.fuse.errno_map``. No class here knows about HTTP or about the kernel.

    CtrfsError
      ShuttingDownError             the mount is ending
      ConfigError                   an option or a setting cannot be used
      MountError                    the mount cannot be made (or unmade)
      NamespaceError                the caller asked for something the tree cannot do
        NoSuchEntryError
        EntryExistsError
        NotADirectoryEntryError
        IsADirectoryEntryError
        DirectoryNotEmptyError
        NameTooLongError
        InvalidNameError              it stands for what no upload can be called
        NotPermittedError             ... and never will: links, files in the root
        CrossContainerError           ... but a copy and a delete can
        UnsupportedRenameError        ... a folder into itself, an exchange
        ReadOnlyError
      HandleError                   something about an open file or handle
        StaleHandleError              its file is gone from the service
        BadHandleError                no such handle, or not open for that
        TooManyOpenFilesError
      AttributeNameError            extended attributes
        NoSuchAttributeError
        UnsupportedAttributeError
        InvalidAttributeValueError
      RemoteError                   the service did not do what we asked
        RemoteGoneError               ... what was asked for is not there any more
          RemoteNotFoundError           ... it knows no such container or file
          ContainerExpiredError         ... the container's data is gone for good
        RemoteInvalidError            ... the request was wrong (400)
        RemoteRefusedError            ... who we are does not suffice (401, 403)
        RemoteReadOnlyError           ... it does not offer that operation
        RemoteConflictError           ... something else is in the way (409)
        RemoteTooLargeError
        RemoteBusyError               ... too many requests, retries used up
        RemoteQuotaError              ... a person must act: credit, plan, quota
        RemoteUnavailableError        ... but might later (5xx, no route, TLS)
          RemoteUncertainError          ... and may have done it: look before sending again
        RemoteStalledError            ... it fell silent for longer than allowed
        RemoteProtocolError           ... or answered something we cannot read
          RemoteMiscountError           ... it says that it has taken more or fewer bytes
      ContentError                  bytes are not what their metadata promised
        TruncatedContentError
        HashMismatchError
      LocalDiskError                the local disk failed us
        LocalDiskFullError
"""

from __future__ import annotations


class CtrfsError(Exception):
    """Base of everything this package raises on purpose."""


class ShuttingDownError(CtrfsError):
    """The mount is ending; the answer will not come."""


class ConfigError(CtrfsError):
    """An option or setting cannot be used; the text is one line for the user."""


class MountError(CtrfsError):
    """The mount cannot be made or unmade; the text is one line for the user."""


class NamespaceError(CtrfsError):
    """The tree does not allow the operation."""


class NoSuchEntryError(NamespaceError):
    """No entry of that name in that directory."""


class EntryExistsError(NamespaceError):
    """The name is taken."""


class NotADirectoryEntryError(NamespaceError):
    """A directory is needed and a file is there."""


class IsADirectoryEntryError(NamespaceError):
    """A file is needed and a directory is there."""


class DirectoryNotEmptyError(NamespaceError):
    """The directory still has entries, here or on the service."""


class NameTooLongError(NamespaceError):
    """The name has more than 255 bytes, or more than the service takes."""


class InvalidNameError(NamespaceError):
    """The name stands for something that no upload can be called."""


class NotPermittedError(NamespaceError):
    """No service operation could ever do this: links, devices, files in the root."""


class CrossContainerError(NamespaceError):
    """Not possible in one step between containers; programs then copy and delete."""


class UnsupportedRenameError(NamespaceError):
    """A folder into itself, or two entries exchanged."""


class ReadOnlyError(NamespaceError):
    """The mount, or this container, takes no changes."""


class HandleError(CtrfsError):
    """Something about an open file or its handle."""


class StaleHandleError(HandleError):
    """The file behind an open handle is gone from the service."""


class BadHandleError(HandleError):
    """No such handle, or it is not open for that."""


class TooManyOpenFilesError(HandleError):
    """The mount's own limit of open files is reached."""


class AttributeNameError(CtrfsError):
    """Something about an extended attribute."""


class NoSuchAttributeError(AttributeNameError):
    """The entry has no such extended attribute."""


class UnsupportedAttributeError(AttributeNameError):
    """This extended attribute cannot be stored here."""


class InvalidAttributeValueError(AttributeNameError):
    """The extended attribute is ours, and this is not a value for it."""


class RemoteError(CtrfsError):
    """The service did not carry out a request.

    Attributes:
        request_id: The service's name for the request, for its support; may be None.
        code: The service's own error code, such as ``invalid_api_key``; may be None.
    """

    def __init__(
        self, message: str = "", *, request_id: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.code = code


class RemoteGoneError(RemoteError):
    """What was asked for is not there, and will not be there again."""


class RemoteNotFoundError(RemoteGoneError):
    """The service knows no such container or file."""


class ContainerExpiredError(RemoteGoneError):
    """The container has expired: its data is gone for good."""


class RemoteInvalidError(RemoteError):
    """The service calls the request invalid; sending it again changes nothing."""


class RemoteRefusedError(RemoteError):
    """The service does not let this key do that."""


class RemoteReadOnlyError(RemoteError):
    """The service does not offer the operation at all."""


class RemoteConflictError(RemoteError):
    """The service says that something else is in the way."""


class RemoteTooLargeError(RemoteError):
    """The service takes no file of that size."""


class RemoteBusyError(RemoteError):
    """Too many requests; retries are already used up."""


class RemoteQuotaError(RemoteError):
    """The account's quota is used up; a person must act."""


class RemoteUnavailableError(RemoteError):
    """The request may succeed later; retries are already used up."""


class RemoteUncertainError(RemoteUnavailableError):
    """No answer came to a request that the service may have carried out."""


class RemoteStalledError(RemoteError):
    """Nothing came from the service for longer than allowed."""


class RemoteProtocolError(RemoteError):
    """The service answered something that is not its protocol."""


class RemoteMiscountError(RemoteProtocolError):
    """The service says that it has stored another number of bytes than it was sent."""


class ContentError(CtrfsError):
    """Received bytes contradict the metadata."""


class TruncatedContentError(ContentError):
    """A download ended early, or brought more than was promised.

    Attributes:
        received_bytes: How many bytes arrived.
        expected_bytes: How many the listing promised.
    """

    def __init__(self, *, received_bytes: int, expected_bytes: int) -> None:
        super().__init__(f"download ended after {received_bytes} of {expected_bytes} bytes")
        self.received_bytes = received_bytes
        self.expected_bytes = expected_bytes


class HashMismatchError(ContentError):
    """Received bytes do not have the hash that the service put into the file's name."""


class LocalDiskError(CtrfsError):
    """The local disk did not do what we asked."""


class LocalDiskFullError(LocalDiskError):
    """The local disk, or our share of it, is full."""
