"""Files that lie in a storage: ``{"url": "s3://bucket/key"}`` in the place of a file's id."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from pydantic import Field, ValidationError

from planish.contract.errors import InvalidSpec
from planish.contract.problem import FieldError
from planish.contract.spec import Strict

SCHEME = "s3://"
URL_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=+@,~-]{1,255}){1,32}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
PLACEHOLDER = "sha256:" + "0" * 64
_DOTS = re.compile(r"/\.{1,2}(/|$)")
_KEYS = frozenset({"id", "url", "sha256"})


class StorageUrl(Strict):
    """A file in a storage that the operator has allowed."""

    url: str = Field(max_length=1024, pattern=URL_PATTERN, description="s3://bucket/key")
    sha256: str | None = Field(None, pattern=SHA256_PATTERN, description="Is checked.")

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self.url.removeprefix(SCHEME).partition("/")[0]

    @property
    def key(self) -> str:
        """Everything behind the bucket."""
        return self.url.removeprefix(SCHEME).partition("/")[2]

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class Place:
    """Where in a spec's ``files`` a URL stands: the role, and its number among several files."""

    role: str
    number: int | None = None

    @property
    def pointer(self) -> str:
        """The JSON pointer to it."""
        return f"/files/{self.role}" + ("" if self.number is None else f"/{self.number}")


def is_storage_url(text: object) -> bool:
    """Tell a storage URL from a path or a file id."""
    return isinstance(text, str) and text.startswith(SCHEME)


def storage_url(value: object, pointer: str = "") -> StorageUrl:
    """Return a checked URL.

    Raises:
        InvalidSpec: not a URL that could be allowed anywhere.
    """
    try:
        found = StorageUrl.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = "/".join(["", *map(str, first["loc"])])
        raise _fault(pointer + at, str(first["msg"])) from None
    if _DOTS.search(found.url):
        raise _fault(f"{pointer}/url", "a key has no parts . or ..")
    return found


def take_urls(document: object) -> tuple[object, dict[Place, StorageUrl]]:
    """Return a spec with placeholders instead of URLs, and the URLs by their places.

    Args:
        document: a decoded spec; whatever else is wrong in it is left for its validation.

    Raises:
        InvalidSpec: a URL that could not be allowed anywhere.
    """
    found: dict[Place, StorageUrl] = {}
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        return document, found
    for role, value in files.items():
        if _is_url(value):
            place = Place(role)
            found[place] = storage_url(value, place.pointer)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, dict) and "url" in item and "id" not in item:
                place = Place(role, number)
                bare = {key: v for key, v in item.items() if key != "name"}
                found[place] = storage_url(bare, place.pointer)
    return put_ids(document, dict.fromkeys(found, PLACEHOLDER)), found


def put_ids(document: object, ids: dict[Place, str]) -> object:
    """Return a spec with file ids at these places."""
    whole = copy.deepcopy(document)
    if not isinstance(whole, dict) or not isinstance(files := whole.get("files"), dict):
        return whole
    for place, file_id in ids.items():
        value = files[place.role]
        if place.number is None:
            files[place.role] = file_id
        elif isinstance(value, list) and isinstance(item := value[place.number], dict):
            rest = {key: v for key, v in item.items() if key not in _KEYS}
            value[place.number] = {"id": file_id, **rest}
    return whole


def _is_url(value: object) -> bool:
    return isinstance(value, dict) and "url" in value


def _fault(pointer: str, reason: str) -> InvalidSpec:
    return InvalidSpec(
        f"{pointer}: {reason}; a storage URL is like s3://bucket/folder/model.safetensors",
        (FieldError(pointer=pointer, detail=reason),),
    )
