"""Requests that are refused, in the words of the service. Each text is its own.

Source: recorded answers of the service; docs/api-notes.md says which are inferred.
"""

from __future__ import annotations


class RefusedError(Exception):
    """A request that gets an error body instead of what it asked for."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code


def no_such_container(container_id: str) -> RefusedError:
    """Return the answer to an id that is unknown, deleted, or not yet ready."""
    return RefusedError(404, f"Container with id '{container_id}' not found.")


def no_such_file() -> RefusedError:
    """Return the answer to a file id that the container does not have."""
    return RefusedError(404, "File not found.")


def container_expired() -> RefusedError:
    """Return the answer to work on a container whose data is gone."""
    return RefusedError(400, "Container is expired.")


def no_such_route(method: str, path: str) -> RefusedError:
    """Return the answer to an address where nothing is."""
    return RefusedError(404, f"Invalid URL ({method} {path})")


def wrong_method(method: str, path: str) -> RefusedError:
    """Return the answer to a method that the address does not take."""
    message = (
        f"Not allowed to {method} on {path}."
        " (HINT: Perhaps you meant to use a different HTTP method?)"
    )
    return RefusedError(405, message, code="method_not_supported")


def no_key() -> RefusedError:
    """Return the answer to a request without a key."""
    message = (
        "You didn't provide an API key. You need to provide your API key in an Authorization"
        " header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
    )
    return RefusedError(401, message)


def wrong_key(key: str) -> RefusedError:
    """Return the answer to a wrong key; it shows no more of the key than the service does."""
    message = (
        f"Incorrect API key provided: {masked_key(key)}. You can find your API key at"
        " https://platform.openai.com/account/api-keys."
    )
    return RefusedError(401, message, code="invalid_api_key")


def masked_key(key: str) -> str:
    """Return the first eight and last four characters with stars between, or only stars."""
    if len(key) <= 12:
        return "*" * len(key)
    return key[:8] + "*" * (len(key) - 12) + key[-4:]


def missing_parameter(name: str) -> RefusedError:
    """Return the answer to a request that lacks something it must have."""
    return RefusedError(
        400,
        f"Missing required parameter: '{name}'.",
        param=name,
        code="missing_required_parameter",
    )


def unknown_parameter(name: str) -> RefusedError:
    """Return the answer to a field that does not exist."""
    return RefusedError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def wrong_type(name: str, *, expected: str, value: object) -> RefusedError:
    """Return the answer to a value of another type than the field has."""
    message = (
        f"Invalid type for '{name}': expected {expected}, but got {_type_name(value)} instead."
    )
    return RefusedError(400, message, param=name, code="invalid_type")


def wrong_choice(name: str, value: str, choices: tuple[str, ...]) -> RefusedError:
    """Return the answer to a text that is none of the allowed ones."""
    listed = ", ".join(f"'{each}'" for each in choices[:-1])
    supported = f"{listed} and '{choices[-1]}'" if listed else f"'{choices[-1]}'"
    message = f"Invalid value: '{value}'. Supported values are: {supported}."
    return RefusedError(400, message, param=name, code="invalid_value")


def above_maximum(name: str, value: int, maximum: int) -> RefusedError:
    """Return the answer to a number that is too large."""
    message = (
        f"Invalid '{name}': integer above maximum value."
        f" Expected a value <= {maximum}, but got {value} instead."
    )
    return RefusedError(400, message, param=name, code="integer_above_max_value")


def below_minimum(name: str, value: int, minimum: int) -> RefusedError:
    """Return the answer to a number that is too small."""
    message = (
        f"Invalid '{name}': integer below minimum value."
        f" Expected a value >= {minimum}, but got {value} instead."
    )
    return RefusedError(400, message, param=name, code="integer_below_min_value")


def unknown_cursor(after: str) -> RefusedError:
    """Return the answer to an ``after`` that was never in the listing."""
    message = f"Invalid value for 'after': no object with id '{after}' in this list."
    return RefusedError(400, message, param="after", code="invalid_value")


def no_such_stored_file(file_id: str) -> RefusedError:
    """Return the answer to a ``file_id`` that the account's store does not have."""
    return RefusedError(404, f"No such File object: {file_id}", param="id")


def bad_request(message: str) -> RefusedError:
    """Return the answer to a request that cannot be read."""
    return RefusedError(400, message)


def too_large(message: str) -> RefusedError:
    """Return the answer to a request with more bytes than are taken."""
    return RefusedError(413, message)


def _type_name(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names[type(value)]
