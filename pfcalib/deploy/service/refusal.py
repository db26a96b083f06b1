"""Why a request gets no answer, in the words of HTTP and of gRPC."""

from __future__ import annotations

import enum

from pfcalib.errors import PfcalibError


class Reason(enum.Enum):
    """Status of HTTP, name of the status of gRPC."""

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    UNKNOWN = (404, "NOT_FOUND")
    FAILED = (500, "INTERNAL")
    OVERLOADED = (503, "RESOURCE_EXHAUSTED")
    CLOSING = (503, "UNAVAILABLE")
    TIMED_OUT = (504, "DEADLINE_EXCEEDED")


class Refusal(PfcalibError):
    """A request that is not answered; the message tells the client why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
