"""cuDNN's LSTM operation: without a GPU it can be traced, but not run."""

import importlib
import pathlib

import pytest
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from cnnrnn.system import devices


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this package and Keras choose as they do on a machine with a GPU."""
    monkeypatch.setattr(devices, "gpus", lambda: [tf.config.PhysicalDevice("GPU:0", "GPU")])
    # A function of the same name hides the module as an attribute.
    rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(rnn, "_is_gpu_available", lambda: True)


def nodes(graph: graph_pb2.GraphDef) -> list:
    """The operations of a graph and of all functions in its library."""
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def cudnn_operations(graph: graph_pb2.GraphDef) -> list[str]:
    """The kinds of cuDNN's operations in a graph and its functions, in order."""
    return [node.op for node in nodes(graph) if "cudnn" in node.op.lower()]


def saved_graph(folder: pathlib.Path) -> graph_pb2.GraphDef:
    """The graph of a SavedModel, which has all of its signatures."""
    content = (folder / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return meta_graph.graph_def
