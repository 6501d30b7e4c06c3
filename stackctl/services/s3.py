"""Signed S3 requests for one object: GET, PUT, HEAD and DELETE.

restic does everything else. If the storage refuses the key or is unreachable, restic retries for a quarter of an hour
before restic reports an error. Therefore stackctl first sends its own request to the storage. The signature is AWS
Signature Version 4: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit


@dataclass(frozen=True)
class Key:
    """An access key: its ID and its secret."""

    id: str = field(repr=False)
    secret: str = field(repr=False)


class Answer(NamedTuple):
    """An answer from the storage."""

    status: int
    code: str
    """Error code of the storage, such as NoSuchBucket. Empty if the storage sent none."""
    body: bytes

    @classmethod
    def of(cls, status: int, body: bytes) -> "Answer":
        named = re.search(rb"<Code>([A-Za-z0-9.]+)</Code>", body) if status >= 400 else None
        return cls(status, named[1].decode() if named else "", body)

    @property
    def cause(self) -> str:
        return f"{self.status} {self.code}".strip()


def url_of(repository: str, name: str) -> str:
    """Return the URL of an object in a restic repository, s3:https://HOST/BUCKET/PREFIX."""
    return f"{repository.removeprefix('s3:')}/{name}"


def date_of(status: int, last_modified: str) -> datetime:
    """Parse the date in the answer to a HEAD request (RFC 9110, 8.8.2). Raises ValueError if there is no date."""
    if status != 200:
        raise ValueError(str(status))
    return parsedate_to_datetime(last_modified).astimezone(UTC)


def signed(method: str, url: str, body: bytes, key: Key, now: datetime) -> dict[str, str]:
    """Sign a request without a query string, and return its headers."""
    parts = urlsplit(url)
    moment, content = f"{now:%Y%m%dT%H%M%SZ}", hashlib.sha256(body).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": content, "x-amz-date": moment}
    names = ";".join(headers)
    spelt = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join([method, quote(parts.path), "", spelt, names, content])
    scope = f"{now:%Y%m%d}/{region(parts.netloc)}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    derived = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    signature = hmac.digest(derived, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": credential}


def region(host: str) -> str:
    """Return the region in a host name such as s3.us-west-004.backblazeb2.com.

    A host without a region accepts any region.
    """
    named = re.match(r"s3[.-]([a-z]{2}-[a-z0-9-]+)\.", host)
    return named[1] if named else "us-east-1"
