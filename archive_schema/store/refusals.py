"""What an object store's errors mean, in words that say what to do.

Clients report what was sent and received; whoever reads the message wants to know which of a
few things is wrong: the keys, the bucket, the region, the address, the network.
"""

from __future__ import annotations

import re
from typing import Final

from archive_schema.errors import ErrorKind, StorageError, StoreRefusedError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([^<]+)</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]+)</Message>")

_OTHER_REGION: Final = "the bucket lies in another region; say which (--region)"
_NO_BUCKET: Final = "there is no such bucket"
_OLD_TOKEN: Final = "the session token is not valid, or no more"  # noqa: S105  no secret
_REFUSED: Final[dict[str, str]] = {
    "AccessDenied": "the credentials do not allow it",
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "ContainerNotFound": _NO_BUCKET,
    "ExpiredToken": _OLD_TOKEN,
    "InvalidAccessKeyId": "the store does not know this access key",
    "InvalidToken": _OLD_TOKEN,
    "NoSuchBucket": _NO_BUCKET,
    "PermanentRedirect": _OTHER_REGION,
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "TokenRefreshRequired": _OLD_TOKEN,
}
"""What stays so until somebody changes it, by the code that S3 (or Azure) gives."""
_UNREACHED: Final[dict[str, str]] = {
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's",
    "SlowDown": "the store asks for fewer requests",
}
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull"})
_FULL_STATUS: Final = "507"
_OURS: Final = re.compile(r"External AWS credential provider: (\w+): (.*)", re.DOTALL)
"""What obstore makes of an error of `archive_schema.store.s3.Credentials`: its class and text."""
_MISTAKES: Final[dict[str, str]] = {
    "BadScheme": "the endpoint URL is not one of http:// or https://",
    "InvalidCertificate": "its certificate is not one that this machine trusts",
    "InvalidContentType": "no TLS is spoken there; is the endpoint http:// and not https://?",
    "bucket does not exist": _NO_BUCKET,
    "incorrectly configured region": _OTHER_REGION,
}
"""What stays so, by a word of the client's."""
_ACCIDENTS: Final[dict[str, str]] = {
    "Connection refused": "nobody listens there (connection refused)",
    "dns error": "the name of its host is not known",
    "TimedOut": "no answer in time",
    "Timeout": "no answer in time",
    "ConnectionReset": "the connection was cut",
    "IncompleteMessage": "the connection was cut",
}
"""What may pass, by a word of the client's."""


def explained(error: Exception, where: str) -> StorageError:
    """Return what *error*, one of a client of an object store, says about the store."""
    text, _, debugged = str(error).partition("\n\nDebug source:")
    code, message, status = (
        found[1] if found else ""
        for found in (_CODE.search(text), _MESSAGE.search(text), _STATUS.search(text))
    )
    said = f" ({message or code})" if message or code else ""
    if refusal := _refusal(text, debugged, code, status):
        return StoreRefusedError(ErrorKind.STORE_REFUSED, f"{where}: {refusal}{said}")
    if code in _FULL or status == _FULL_STATUS:
        return StorageError(ErrorKind.STORE_FULL, f"{where}: the store is full{said}")
    ours = _OURS.search(text)
    accident = ours[2] if ours else _UNREACHED.get(code, "")
    if not status and not accident:
        accident = next((told for word, told in _ACCIDENTS.items() if word in debugged), "")
    if not accident:
        accident = f"status {status}{said}" if status else " ".join(text.split())
    return StorageError(ErrorKind.STORE_UNREACHABLE, f"{where}: {accident}")


def _refusal(text: str, debugged: str, code: str, status: str) -> str:
    """Return what will stay as it is, in words; nothing if it may pass."""
    if code in _REFUSED:
        return _REFUSED[code]
    if status in ("401", "403") and code not in _UNREACHED:
        return "the store does not let these credentials in"
    ours = _OURS.search(text)
    if ours and ours[1] == StoreRefusedError.__name__:
        return ours[2]
    mistakes = (told for word, told in _MISTAKES.items() if word in text or word in debugged)
    return next(mistakes, "")


def names_no_bucket(error: Exception) -> bool:
    """Return whether an error for an absent object is one for an absent bucket."""
    found = _CODE.search(str(error))
    return found is not None and _REFUSED.get(found[1]) == _NO_BUCKET
