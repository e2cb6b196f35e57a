"""AWS's Signature Version 4 for requests without a body, as a pure function.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime

import httpx

_ALGORITHM = "AWS4-HMAC-SHA256"
_NOTHING = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Key:
    """An access key."""

    id: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def signed_headers(
    method: str, url: httpx.URL, key: Key, *, region: str, now: datetime
) -> dict[str, str]:
    """Return the headers that sign a request; path and query must be percent-encoded strictly.

    Headers that the signature leaves out, such as a range, may be added to the request.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    shown = {"x-amz-content-sha256": _NOTHING, "x-amz-date": moment}
    if key.session_token:
        shown["x-amz-security-token"] = key.session_token
    signed = {"host": url.netloc.decode("ascii"), **shown}
    path, _, query = url.raw_path.decode("ascii").partition("?")
    request = "\n".join(
        (
            method,
            path,
            "&".join(sorted(query.split("&"))),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            ";".join(sorted(signed)),
            _NOTHING,
        )
    )
    text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    secret = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    names = ";".join(sorted(signed))
    proof = f"Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**shown, "authorization": f"{_ALGORITHM} {proof}"}
