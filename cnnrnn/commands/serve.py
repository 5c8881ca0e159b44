"""`serve`: an export over HTTP."""

import base64
import errno
import functools
import itertools
import pathlib
import signal
import socket
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.evaluation import charts
from cnnrnn.export import loader, saved_model
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.serving import batcher
from cnnrnn.settings import serving as serving_settings
from cnnrnn.system import devices
from cnnrnn.system import text as text_lib

_NAME = "cnnrnn"
_BATCH_SIZE, _QUEUE_SIZE = 32, 256
_EXPLANATIONS_QUEUE_SIZE = 16  # one at a time, each as long as classifying some ten images
_MAX_CONNECTIONS = 128  # at a time, each with a body; the server answers further ones with 503
_SHUTDOWN_TIMEOUT_S = 10  # for open requests, when the server is stopped
_LOCAL_NAMES = ("localhost", "127.0.0.1")
_ALL_ADDRESSES = "0.0.0.0"


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Serves an export until the process is stopped.

    Args:
        arguments: none.
        config: `model`, `trust_export`, `top`, `eval_image_size` and the serving group are used.

    Raises:
        UsageError: if there is no export, or one for another image size, fewer classes or earlier
            weights, the port is in use, or the web server is not installed.
        RunError: if the export is damaged.
    """
    try:  # here, because these packages are an extra
        import uvicorn

        from cnnrnn.serving import app
    except ModuleNotFoundError as error:
        raise errors.UsageError(
            f"serve needs the package {error.name}, which is not installed: pip install "
            '"cnnrnn[serve]", or use ./run.sh serve, which installs it.'
        ) from error

    with _listen(config.serving) as listener:  # before loading, which takes long
        predict, explain = _load(config)
        application = app.application(
            _NAME,
            batcher.Batcher(predict, _BATCH_SIZE, _QUEUE_SIZE),
            batcher.Batcher(explain, batch_size=1, queue_size=_EXPLANATIONS_QUEUE_SIZE),
            max_body_bytes=int(config.serving.max_body_megabytes * 1e6),
            allowed_hosts=_allowed_hosts(config.serving.host, listener.getsockname()[0]),
        )
        url = f"http://{config.serving.host}:{listener.getsockname()[1]}"
        logging.info(f"  page     {url}/\n  predict  {url}/v1/models/{_NAME}:predict")
        settings = uvicorn.Config(
            application,
            log_level="warning",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
        server = uvicorn.Server(settings)
        # It handles SIGINT and SIGTERM itself. A closed terminal means the same, but not for nohup.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda _, frame: server.handle_exit(signal.SIGTERM, frame))
        server.run(sockets=[listener])


def _load(config: config_lib.Config) -> tuple[batcher.Function, batcher.Function]:
    """Loads the export; returns the functions that classify and explain, compiled."""
    root = config.model_dir
    folder = root / "export" if (root / "export").is_dir() else root
    logging.info(f"serve: loading {folder}. {loader.WARNING}")
    export = loader.load(folder, trusted=config.prediction.trust_export)
    loader.check_image_size(export, folder, config.data.eval_image_size)
    if folder != root:
        _check_weights(export, folder)
    loader.check_max_megapixels(export, folder, config.data.max_megapixels)
    top = loader.check_top(export, folder, config.prediction.top)
    predict = functools.partial(_predict, export.signatures, top)
    preprocessing = views_lib.Preprocessing(export.metadata["resize_method"])
    explain = functools.partial(_explain, export.signatures, preprocessing, top)
    logging.info("serve: processing one image, to compile the signatures")
    image = tf.io.encode_png(np.zeros((1, 1, 3), np.uint8)).numpy()
    predict([image])
    explain([image])
    return predict, explain


def _listen(settings: serving_settings.ServingSettings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port))
    except (OSError, TypeError, UnicodeError) as error:  # the last two: no host has such a name
        reason = getattr(error, "strerror", None) or "this is not the name of a host"
        reason = reason.partition(" (while attempting")[0]  # Python adds the address once more
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            fix = "Use another --port; 0 takes any free one."
        else:
            fix = (
                "Give --host a name or an IPv4 address of this machine, or "
                f"{_ALL_ADDRESSES} for all."
            )
        raise errors.UsageError(
            f"cannot listen on --host={settings.host} --port={settings.port}: {reason}. {fix}"
        ) from error


def _check_weights(export: loader.Export, folder: pathlib.Path) -> None:
    """Checks that the export in a run's folder has the best weights of the run.

    Raises:
        UsageError: the run has found better weights since, or has been replaced.
    """
    try:
        best = best_weights.latest(run_folder.RunFolder(folder.parent).best)
    except errors.UsageError:  # the export was copied without its run
        return
    except errors.RunError as error:
        logging.warning(f"whether the export has the run's best weights is not known: {error}")
        return
    exported = export.metadata
    if exported.get("weights_sha256", best.sha256) != best.sha256:
        raise errors.UsageError(
            f"{folder} has the weights of {exported['phase']}, epoch {exported['epoch']}, and the "
            f"run's best ones are now of {best.phase}, epoch {best.epoch}: run "
            f"{text_lib.program()} export again, or give --model={folder} to serve it as it is."
        )


def _allowed_hosts(host: str, address: str) -> list[str]:
    """The names by which clients may address the server, for its check of the Host header.

    Warns if any name is allowed.

    Args:
        host: the name or address to listen on, given by the user.
        address: the address that it resolved to.

    Returns:
        The name, the address, and this machine's local names. "*" (any name) if the server listens
        on all addresses: the names of a machine in a network, behind a proxy or in a container are
        not known here.
    """
    if address != _ALL_ADDRESSES:
        return sorted({host, address, *_LOCAL_NAMES})
    logging.warning(
        f"--host={host} accepts requests with any Host header, so a web page in a browser can use "
        "this server through DNS rebinding: give --host the one address or name that clients use, "
        "or put a proxy in front that checks Host and passes it on unchanged."
    )
    return ["*"]


def _predict(signatures, top: int, images: list[bytes]) -> list[batcher.Result]:
    """The `top` predictions for each image, as JSON values."""
    outputs = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
    columns = (outputs[name].numpy() for name in ("classes", "probabilities", "error"))
    return [
        {
            "classes": [name.decode() for name in classes[:top]],
            "probabilities": probabilities[:top].tolist(),
            "error": error.decode(),
        }
        for classes, probabilities, error in zip(*columns, strict=True)
    ]


def _explain(
    signatures, preprocessing: views_lib.Preprocessing, top: int, images: list[bytes]
) -> list[batcher.Result]:
    """The `top` classes of one image, with a figure of the attribution maps as a data URL."""
    (image,) = images  # the size of a batch
    outputs = signatures["explained"](image_bytes=tf.constant(images))
    outputs = {name: values.numpy()[0] for name, values in outputs.items()}
    if outputs["error"]:
        return [{"error": outputs["error"].decode()}]
    names = [name.decode() for name in outputs["classes"][:top]]
    probabilities = outputs["probabilities"][:top].tolist()
    maps = (  # None: of a branch that the network lacks
        outputs[name][: saved_model.EXPLAINED] if name in outputs else itertools.repeat(None)
        for name in ("cam", "timesteps")
    )
    classes = list(zip(names, probabilities, *maps, strict=False))  # the first ones have maps
    with devices.on_cpu():
        view = preprocessing.rgb(views_lib.decode(tf.constant(image)))
    figure = charts.explanation_figure(view.numpy(), classes)
    result = {
        "classes": [
            {"class": name, "probability": probability}
            for name, probability in zip(names, probabilities, strict=True)
        ],
        "figure": f"data:image/png;base64,{base64.b64encode(figure).decode()}",
    }
    return [result]
