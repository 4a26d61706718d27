"""What a client accepts (RFC 9110, section 12.5.1) and prefers (RFC 7240)."""

from __future__ import annotations

import re

from planish.contract.errors import InvalidParameter

MAX_WAIT_SECONDS = 60
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"^\d{1,15}$", re.ASCII)


def choose(accept: str | None, offered: tuple[str, ...]) -> str:
    """Return the offered media type that the client likes best; the first one when it likes none.

    An answer in another form helps more than a refusal; RFC 9110 leaves the choice to the server.
    """
    if not accept or not accept.strip():
        return offered[0]
    ranked = [(_quality(accept, kind), -index, kind) for index, kind in enumerate(offered)]
    return max(ranked)[2]


def wait_seconds(prefer: str | None) -> int | None:
    """Return N of ``Prefer: wait=N``, at most `MAX_WAIT_SECONDS`; None when it is not asked for."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(int(match[1]), MAX_WAIT_SECONDS)


def event_id(text: str | None, name: str) -> int:
    """Return an event id from a header or parameter; 0 when there is none.

    Raises:
        InvalidParameter: not a whole number.
    """
    if text is None or not text.strip():
        return 0
    if not _NUMBER.match(text.strip()):
        raise InvalidParameter(f"{name}: needs the number of an event; got {text[:50]!r}")
    return int(text)


def _quality(accept: str, kind: str) -> float:
    """Return the quality that the most specific matching range gives to `kind`."""
    major = kind.split("/")[0]
    found = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        found[media_range] = _q(parameters)
    for media_range in (kind, f"{major}/*", "*/*"):
        if media_range in found:
            return found[media_range]
    return 0.0


def _q(parameters: list[str]) -> float:
    text = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text, re.ASCII) else 0.0
