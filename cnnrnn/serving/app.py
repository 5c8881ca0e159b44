"""The web application: TensorFlow Serving's REST interface, and a page for people.

  POST /v1/models/NAME:predict   {"instances": [{"b64": "..."}, ...]} -> {"predictions": [...]}
  GET  /v1/models/NAME           the status of the model
  GET  /health                   "ok"
  GET  /                         a page to drop an image on
  POST /explain                  an image file -> its classes, and a PNG of the explanation

The format is the row format of https://www.tensorflow.org/tfx/serving/api_rest for a model with a
single input, so TensorFlow Serving can replace this server.

A web page that is open in a browser can send requests to any server on the same machine. So the
Host header is checked against a list of names (DNS rebinding), and a request whose Origin header
is that of another site is refused. Clients other than browsers send no Origin.
"""

import asyncio
import base64
import binascii
import json
import pathlib
from collections.abc import Coroutine, Sequence
from typing import Any

from starlette import applications, datastructures, middleware, requests, responses, routing, types
from starlette.middleware import trustedhost

from cnnrnn.serving import batcher

_PAGE = pathlib.Path(__file__).with_name("page.html")
_MAX_INSTANCES = 64
_BODY_TIMEOUT_S = 30


class _Refused(Exception):
    """A request that is not processed: the message and the HTTP status of the response."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class _SameOrigin:
    """Middleware that refuses requests sent by pages of other sites."""

    def __init__(self, app: types.ASGIApp):
        self._app = app

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = datastructures.Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                message = f"cross-origin requests are refused: this one comes from {origin}"
                app = responses.JSONResponse({"error": message}, status_code=403)
        await app(scope, receive, send)


def application(
    name: str,
    predictions: batcher.Batcher,
    explanations: batcher.Batcher,
    *,
    max_body_bytes: int,
    allowed_hosts: Sequence[str],
) -> applications.Starlette:
    """Builds the web application.

    Args:
        name: name of the model in the URL.
        predictions: images -> "classes", "probabilities" and "error" each.
        explanations: images -> "classes" and "figure" each, or "error".
        max_body_bytes: larger requests are refused, and the rest is dropped as it arrives: a client
            whose connection was closed while it sends would not see why.
        allowed_hosts: accepted host names of the Host header, without port; "*" accepts any.
    """

    async def predict(request: requests.Request) -> responses.Response:
        instances = _instances(await _body(request, max_body_bytes))
        results = await _while_connected(request, predictions.compute(instances))
        return responses.JSONResponse({"predictions": results})

    async def explain(request: requests.Request) -> responses.Response:
        image = await _body(request, max_body_bytes)
        (explanation,) = await _while_connected(request, explanations.compute([image]))
        status = 400 if "error" in explanation else 200
        return responses.JSONResponse(explanation, status_code=status)

    async def status(request: requests.Request) -> responses.Response:
        version = {"version": "1", "state": "AVAILABLE"}
        ok = {"error_code": "OK", "error_message": ""}
        return responses.JSONResponse({"model_version_status": [version | {"status": ok}]})

    async def health(request: requests.Request) -> responses.Response:
        return responses.PlainTextResponse("ok\n")

    async def page(request: requests.Request) -> responses.Response:
        return responses.HTMLResponse(
            _PAGE.read_text(encoding="utf-8"),
            headers={
                "Content-Security-Policy": "default-src 'none'; img-src data: blob:; connect-src "
                "'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
                "X-Content-Type-Options": "nosniff",
            },
        )

    def refused(request: requests.Request, error: Exception) -> responses.Response:
        # Otherwise a client that goes on sending slowly would keep the connection.
        headers = {"Connection": "close"} if error.status == 408 else {}
        return responses.JSONResponse({"error": str(error)}, error.status, headers)

    def queue_full(request: requests.Request, error: Exception) -> responses.Response:
        return responses.JSONResponse(
            {"error": "the queue is full: try again later"},
            status_code=503,
            headers={"Retry-After": "1"},
        )

    return applications.Starlette(
        routes=[
            routing.Route("/", page),
            routing.Route("/health", health),
            routing.Route("/explain", explain, methods=["POST"]),
            routing.Route(f"/v1/models/{name}", status),
            routing.Route(f"/v1/models/{name}:predict", predict, methods=["POST"]),
        ],
        middleware=[
            middleware.Middleware(
                trustedhost.TrustedHostMiddleware, allowed_hosts=allowed_hosts, www_redirect=False
            ),
            middleware.Middleware(_SameOrigin),
        ],
        exception_handlers={_Refused: refused, batcher.QueueFull: queue_full},
    )


async def _body(request: requests.Request, max_bytes: int) -> bytes:
    """Reads a request's body, within limits of size and time."""
    parts, length = [], 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for part in request.stream():
                length += len(part)
                if length > max_bytes:
                    raise _Refused(413, f"the body is larger than {max_bytes / 1e6:g} MB")
                parts.append(part)
    except TimeoutError as error:
        raise _Refused(408, f"the body did not arrive within {_BODY_TIMEOUT_S} s") from error
    except requests.ClientDisconnect as error:  # nobody reads this response
        raise _Refused(400, "the body is incomplete") from error
    return b"".join(parts)


async def _while_connected(
    request: requests.Request, computation: Coroutine[Any, Any, list[batcher.Result]]
) -> list[batcher.Result]:
    """The results of a computation, which is cancelled if the client closes the connection."""
    computing = asyncio.create_task(computation)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((computing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not computing.done():  # nobody reads this response
            raise _Refused(400, "the connection was closed")
        return computing.result()
    finally:
        computing.cancel()
        leaving.cancel()


async def _disconnected(request: requests.Request) -> None:
    """Waits until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _instances(body: bytes) -> list[bytes]:
    """The image files in the body of a predict request."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is not JSON: {error}") from error
    instances = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(instances, list):
        raise _Refused(400, 'expected {"instances": [{"b64": "..."}, ...]}')
    if len(instances) > _MAX_INSTANCES:
        raise _Refused(400, f"expected at most {_MAX_INSTANCES} instances, got {len(instances)}")
    if content.get("signature_name", "serving_default") != "serving_default":
        raise _Refused(400, "the only signature available is 'serving_default'")
    return [_image(instance) for instance in instances]


def _image(instance: Any) -> bytes:
    """The image file in one instance."""
    if isinstance(instance, dict) and set(instance) == {"image_bytes"}:
        instance = instance["image_bytes"]
    encoded = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(encoded, str):
        raise _Refused(400, 'an instance is {"b64": "..."} or {"image_bytes": {"b64": "..."}}')
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Refused(400, f"an instance is not valid base64: {error}") from error
