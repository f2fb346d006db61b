"""How a client is told what went wrong: always in OpenAI's shape, never with a traceback.

{"error": {"message": "…", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve.errors import INVALID, ServiceError


def error_body(error: BaseException) -> dict[str, Any]:
    """The JSON that tells `error` to a client. Of an error that is our own fault only that it happened is told."""
    if not isinstance(error, ServiceError):
        return _body("internal server error", "server_error", None, "internal_error")
    return _body(error.message, error.kind, error.param, error.code)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` leave in OpenAI's shape."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return JSONResponse(error_body(error), error.status, headers=error.headers)


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    """The server logs the error itself: Starlette raises it again after this answer."""
    return JSONResponse(error_body(error), 500)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = "not_found" if error.status_code == 404 else None
    return JSONResponse(_body(message, INVALID, None, code), error.status_code, headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        message = f"the body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
        return JSONResponse(_body(message, INVALID, None, "invalid_json"), 400)
    if not isinstance(error.body, Mapping):
        message = "expected a JSON object in the body, with the header Content-Type: application/json"
        return JSONResponse(_body(message, INVALID, None, None), 400)
    param = _field(first["loc"][1:], error.body)
    message = first["msg"].removeprefix("Value error, ")
    return JSONResponse(_body(f"{param}: {message}" if param else message, INVALID, param, None), 400)


def _field(location: Sequence[str | int], body: Any) -> str | None:
    """The path to the value that is wrong: pydantic's location without the names of the types it tried."""
    path = ""
    for part in location:
        if isinstance(part, int) and isinstance(body, list) and part < len(body):
            path, body = f"{path}[{part}]", body[part]
        elif isinstance(body, Mapping) and (part in body or part == location[-1]):
            path, body = f"{path}.{part}", body.get(part)
    return path.removeprefix(".") or None
