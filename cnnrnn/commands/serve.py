"""`serve`: an export behind HTTP, on this machine alone unless --host says otherwise."""

import base64
import functools
import socket
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.evaluation import charts
from cnnrnn.export import loader
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.serving import app, batcher

_NAME = "cnnrnn"
_BATCH, _WAITING = 32, 256
_EXPLANATIONS_WAITING = 16  # each takes as long as some ten images; one is made at a time
_CONNECTIONS = 128  # at a time, each with a body; more are told to come again
_STOP_SECONDS = 10  # that requests at hand may take when the server is to stop
_SHOWN = 3  # classes in a figure


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Serves until it is stopped.

    Raises:
        UsageError: there is no export, or the port is taken.
        RunError: the export is damaged.
    """
    import uvicorn  # an extra: requirements-serve.txt

    folder = config.model_dir
    folder = folder / "export" if (folder / "export").is_dir() else folder
    export = loader.load(folder)
    signatures = export.signatures
    preprocessing = views_lib.Preprocessing(export.notes["resize_method"])
    application = app.application(
        _NAME,
        batcher.Batcher(functools.partial(classify, signatures), _BATCH, _WAITING),
        batcher.Batcher(
            functools.partial(explain, signatures, preprocessing),
            batch_size=1,
            waiting=_EXPLANATIONS_WAITING,
        ),
        int(config.serving.max_body_megabytes * 1e6),
    )
    print("serve: classifying and explaining one image, to have everything compiled", flush=True)
    image = tf.io.encode_png(np.zeros((1, 1, 3), np.uint8)).numpy()
    classify(signatures, [image])
    explain(signatures, preprocessing, [image])
    try:
        listener = socket.create_server((config.serving.host, config.serving.port))
    except OSError as error:
        raise errors.UsageError(
            f"cannot listen on --host={config.serving.host} --port={config.serving.port}: "
            f"{error.strerror}."
        ) from error
    address = f"http://{config.serving.host}:{listener.getsockname()[1]}"
    print(
        f"serve: {folder}\n  page     {address}/\n  predict  {address}/v1/models/{_NAME}:predict",
        flush=True,
    )
    settings = uvicorn.Config(
        application,
        log_level="warning",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    uvicorn.Server(settings).run(sockets=[listener])


def classify(signatures, images: list[bytes]) -> list[batcher.Answer]:
    """The answers of the export for images, as JSON has them."""
    said = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
    return [
        {
            "classes": [name.decode() for name in classes],
            "probabilities": probabilities.tolist(),
            "error": error.decode(),
        }
        for classes, probabilities, error in zip(
            *(said[name].numpy() for name in ("classes", "probabilities", "error")), strict=True
        )
    ]


def explain(
    signatures, preprocessing: views_lib.Preprocessing, images: list[bytes]
) -> list[batcher.Answer]:
    """The images' classes, each with a figure of where they were found as a data URL."""
    return [_explain(signatures, preprocessing, image) for image in images]


def _explain(signatures, preprocessing: views_lib.Preprocessing, image: bytes) -> batcher.Answer:
    said = {
        name: value.numpy()[0]
        for name, value in signatures["explained"](image_bytes=tf.constant([image])).items()
    }
    if said["error"]:
        return {"error": said["error"].decode()}
    view = preprocessing.rgb(views_lib.decode(tf.constant(image)))
    classes = [
        (name.decode(), float(probability), cam, timesteps)
        for name, probability, cam, timesteps in zip(
            *(said[name] for name in ("classes", "probabilities", "cam", "timesteps")), strict=True
        )
    ]
    figure = charts.explanation_figure(view.numpy(), classes[:_SHOWN])
    return {
        "classes": [{"class": name, "probability": share} for name, share, *_ in classes],
        "figure": f"data:image/png;base64,{base64.b64encode(figure).decode()}",
    }
