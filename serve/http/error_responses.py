"""How a client is told what went wrong: always in OpenAI's shape, never with a traceback.

{"error": {"message": "…", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve.errors import INVALID, InvalidRequest, ServiceError


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request is not answered as it is; `param` names the field."},
    "5XX": {"model": ErrorAnswer, "description": "The server cannot answer now."},
}
"""For the OpenAPI document."""


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
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        place = f"{problems[0]['ctx']['error']} at character {problems[0]['loc'][-1]}"
        return _refusal(f"the body is not valid JSON: {place}", None)
    if not isinstance(error.body, Mapping):
        return _refusal("expected a JSON object, with the header Content-Type: application/json", None)
    # Where several types are allowed, the one that was meant is the one that fits furthest into the value.
    problem = max(problems, key=lambda found: len(_path(found, error.body)))
    field = "".join(_path(problem, error.body)).removeprefix(".")
    unknown = problem["type"] == "extra_forbidden"
    message = "unknown field" if unknown else problem["msg"].removeprefix("Value error, ")
    return _refusal(f"{field}: {message}" if field else message, field or None)


def _refusal(message: str, field: str | None) -> JSONResponse:
    return JSONResponse(error_body(InvalidRequest(message, field)), InvalidRequest.status)


def _path(problem: Mapping[str, Any], body: Any) -> list[str]:
    """The way to the value that is wrong: pydantic's location without the names of the types it tried."""
    path = []
    for part in problem["loc"][1:]:
        if isinstance(part, int) and isinstance(body, list) and part < len(body):
            path.append(f"[{part}]")
            body = body[part]
        elif isinstance(body, Mapping) and (part in body or problem["type"] == "missing"):
            path.append(f".{part}")
            body = body.get(part)
    return path
