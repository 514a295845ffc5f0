"""What a client is told of what went wrong, in the form of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from starlette.responses import JSONResponse


class Fault(Exception):
    """A request that is refused, or failed. status: of HTTP; param: the field that is wrong; code: for programs; headers: of the answer."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """The error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = str(self).encode(errors="backslashreplace").decode()  # it may repeat what a client sent, which need not be UTF-8
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def wrong(param: str, message: str, code: str | None = "invalid_value") -> Fault:
    """400: a field that cannot be."""
    return Fault(400, message, param=param, code=code)


def late(seconds: float) -> Fault:
    """504: it took longer than a request may."""
    return Fault(504, f"The request took longer than {seconds:g} s.", code="timeout")


def busy(message: str, seconds: int) -> Fault:
    """503: not now; the client may come again after some seconds."""
    return Fault(503, message, code="overloaded", headers={"retry-after": str(seconds)})
