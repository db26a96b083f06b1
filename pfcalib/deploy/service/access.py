"""Who may ask, how many at once, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

from pfcalib.deploy.service.refusal import Reason, Refusal


class Clock:
    """Time that is left to a request."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    def shorten(self, microseconds: Any) -> None:
        """Set what the request itself allows, the parameter `timeout` of the protocol, if less;
        Refusal unless it is none or a whole number.
        """
        if microseconds is None:
            return
        if not isinstance(microseconds, int) or microseconds < 0:
            raise Refusal(
                Reason.INVALID, f"timeout is {microseconds!r}, expected whole microseconds"
            )
        due, asked = self._timeout.when(), asyncio.get_running_loop().time() + microseconds / 1e6
        if microseconds and (due is None or asked < due):
            self._timeout.reschedule(asked)


class Access:
    """Limits of a service.

    Parameters
    ----------
    token : str, optional
        That clients send as `Authorization: Bearer <token>`.
    timeout_s : float
        From the arrival of a request to its answer.
    max_open : int
        Requests that are read or wait at once.
    """

    def __init__(self, *, token: str | None, timeout_s: float, max_open: int) -> None:
        self._expected = f"Bearer {token}".encode() if token else None
        self._timeout_s = timeout_s
        self._max_open = max_open
        self._n_open = 0

    def require(self, authorization: str | None) -> None:
        """Refusal unless the token is right; the comparison takes as long for any other."""
        given = (authorization or "").encode(errors="surrogateescape")
        if self._expected and not hmac.compare_digest(given, self._expected):
            raise Refusal(Reason.UNAUTHENTICATED, "the token is missing or wrong")

    @contextlib.asynccontextmanager
    async def limited(self) -> AsyncIterator[Clock]:
        """A request; Refusal if there are too many, or its time is over."""
        if self._n_open >= self._max_open:
            raise Refusal(Reason.OVERLOADED, f"{self._n_open} requests are open: try again later")
        self._n_open += 1
        try:
            async with asyncio.timeout(self._timeout_s) as timeout:
                yield Clock(timeout)
        except TimeoutError as error:
            raise Refusal(Reason.TIMED_OUT, "no answer within the limit of time") from error
        finally:
            self._n_open -= 1
