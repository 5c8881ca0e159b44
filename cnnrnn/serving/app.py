"""The export over HTTP, in the format of TensorFlow Serving's REST interface.

  POST /v1/models/NAME:predict   {"instances": [{"b64": "..."}, ...]} -> {"predictions": [...]}
  GET  /v1/models/NAME           whether it can be asked
  GET  /health                   the same, in a word
  GET  /                         a page to drop an image on
  POST /explain                  an image's bytes -> its classes, and a PNG of the explanation

The format is https://www.tensorflow.org/tfx/serving/api_rest, by rows, for the one input that
there is, so TensorFlow Serving can take this server's place.
"""

import asyncio
import base64
import binascii
import json
import pathlib
from typing import Any

from starlette import applications, requests, responses, routing

from cnnrnn.serving import batcher

_PAGE = pathlib.Path(__file__).with_name("page.html")
_MOST_INSTANCES = 64
_BODY_SECONDS = 30


class _Refused(Exception):
    """A request that is not carried out: what to say, under which status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def application(
    name: str, predictions: batcher.Batcher, explanations: batcher.Batcher, max_body_bytes: int
) -> applications.Starlette:
    """The web application.

    Args:
        name: of the model, in its address.
        predictions: answers images by classes and probabilities.
        explanations: answers images by "classes" and "figure", or "error".
        max_body_bytes: a request with a larger body is refused before it is read to its end.
    """

    async def predict(request: requests.Request) -> responses.Response:
        instances = _instances(await _body(request, max_body_bytes))
        return responses.JSONResponse({"predictions": await predictions.answers(instances)})

    async def explained(request: requests.Request) -> responses.Response:
        image = await _body(request, max_body_bytes)
        (answer,) = await explanations.answers([image])
        return responses.JSONResponse(answer, status_code=400 if "error" in answer else 200)

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
        return responses.JSONResponse({"error": str(error)}, status_code=error.status)

    def full(request: requests.Request, error: Exception) -> responses.Response:
        return responses.JSONResponse(
            {"error": "too many images are waiting; ask again"},
            status_code=503,
            headers={"Retry-After": "1"},
        )

    return applications.Starlette(
        routes=[
            routing.Route("/", page),
            routing.Route("/health", health),
            routing.Route("/explain", explained, methods=["POST"]),
            routing.Route(f"/v1/models/{name}", status),
            routing.Route(f"/v1/models/{name}:predict", predict, methods=["POST"]),
        ],
        exception_handlers={_Refused: refused, batcher.Full: full},
    )


async def _body(request: requests.Request, most: int) -> bytes:
    """A request's body, read no further than it may be long, and no longer than it may take."""
    parts, length = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length > most:
                    raise _Refused(413, f"the body is larger than {most / 1e6:g} MB")
                parts.append(part)
    except TimeoutError as error:
        raise _Refused(408, f"the body did not come within {_BODY_SECONDS} s") from error
    except requests.ClientDisconnect as error:
        raise _Refused(400, "the body has no end") from error  # nobody is there to read it
    return b"".join(parts)


def _instances(body: bytes) -> list[bytes]:
    """The images of a request for prediction."""
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is no JSON: {error}") from error
    instances = wanted.get("instances") if isinstance(wanted, dict) else None
    if not isinstance(instances, list):
        raise _Refused(400, 'expected {"instances": [{"b64": "..."}, ...]}')
    if len(instances) > _MOST_INSTANCES:
        raise _Refused(400, f"{len(instances)} instances; at most {_MOST_INSTANCES} at a time")
    if wanted.get("signature_name", "serving_default") != "serving_default":
        raise _Refused(400, "there is no signature but 'serving_default'")
    return [_image(instance) for instance in instances]


def _image(instance: Any) -> bytes:
    if isinstance(instance, dict) and set(instance) == {"image_bytes"}:
        instance = instance["image_bytes"]
    encoded = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(encoded, str):
        raise _Refused(400, 'an instance is {"b64": "..."} or {"image_bytes": {"b64": "..."}}')
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Refused(400, f"an instance is no base64: {error}") from error
