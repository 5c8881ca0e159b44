"""The LSTM layer compared with keras.layers.LSTM: values, gradients, weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.models import lstm
from tests import cudnn

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


def pair(dtype, *, units=5, features=7, sequences=True):
    """Our layer and Keras's with the same non-zero weights."""
    ours = lstm.LSTM(units, return_sequences=sequences, dtype=dtype)
    theirs = keras.layers.LSTM(units, return_sequences=sequences, dtype=dtype)
    for layer in (ours, theirs):
        layer.build((None, 4, features))
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.5, w.shape) for w in theirs.get_weights()]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs


def values_and_gradients(layer, x, upstream):
    """Outputs, and gradients of sum(outputs * upstream) with respect to x and each weight."""

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs * upstream)
        return [outputs, *tape.gradient(loss, [x, *layer.trainable_variables])]

    return [value.numpy() for value in run(x)]


SHAPES = [(3, 4), (1, 4), (6, 1), (1, 1), (2, 23)]
QUICK = {
    *(("float64", 3, 4, True), ("float64", 1, 1, True)),
    *(("float64", 3, 4, False), ("float32", 3, 4, True)),
}


@pytest.mark.parametrize(
    "dtype, tolerance, batch, timesteps, sequences",
    [
        pytest.param(
            *(dtype, tolerance, *shape, sequences),
            marks=[] if (dtype, *shape, sequences) in QUICK else pytest.mark.slow,
        )
        for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-5))
        for shape in SHAPES
        for sequences in (True, False)
    ],
)
def test_values_and_gradients_match_keras(dtype, tolerance, batch, timesteps, sequences):
    ours, theirs = pair(dtype, sequences=sequences)
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(size=(batch, timesteps, 7)), dtype)
    shape = (batch, timesteps, 5) if sequences else (batch, 5)
    upstream = tf.constant(rng.normal(size=shape), dtype)
    expected = values_and_gradients(theirs, x, upstream)
    for value, right in zip(values_and_gradients(ours, x, upstream), expected, strict=True):
        assert value.shape == right.shape and value.dtype == right.dtype
        np.testing.assert_allclose(value, right, rtol=0, atol=tolerance * max(1, abs(right).max()))


def test_two_layers_train_like_those_of_keras():
    """The first layer is trained by the gradient of the second layer's input."""

    def model(layer):
        inputs = keras.Input((6, 7))
        x = layer(5, return_sequences=True, name="a")(inputs)
        return keras.Model(inputs, layer(4, name="b")(x))

    ours, theirs = model(lstm.LSTM), model(keras.layers.LSTM)
    ours.set_weights(theirs.get_weights())
    x = np.random.default_rng(0).normal(size=(8, 6, 7)).astype("float32")
    for one in (ours, theirs):
        one.compile(keras.optimizers.SGD(0.5), "mse")
        one.fit(x, np.ones((8, 4)), epochs=5, batch_size=8, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_batch_size_may_be_unknown_in_tracing():
    ours, theirs = pair("float32")
    run = tf.function(ours, input_signature=[tf.TensorSpec((None, 4, 7), tf.float32)])
    for batch in (1, 5):
        x = tf.random.stateless_normal((batch, 4, 7), (0, 0))
        np.testing.assert_allclose(run(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weight_files_are_interchangeable_with_keras(tmp_path, suffix):
    def model(layer):
        inputs = keras.Input((4, 7))
        return keras.Model(inputs, layer(5, name="lstm")(inputs))

    ours, theirs, other = model(lstm.LSTM), model(keras.layers.LSTM), model(lstm.LSTM)
    path = str(tmp_path / f"model{suffix}")
    if suffix == ".keras":
        ours.save(path)
        loaded = keras.saving.load_model(path)
        for a, b in zip(ours.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        return
    for source, target in ((ours, theirs), (theirs, other)):
        source.save_weights(path)
        target.load_weights(path)
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_checkpoints_are_interchangeable_with_keras(tmp_path):
    ours, theirs = pair("float32")
    theirs.set_weights([w + 1 for w in theirs.get_weights()])
    path = tf.train.Checkpoint(layer=theirs).write(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(layer=ours).read(path).assert_existing_objects_matched()
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_rounds_only_the_operands():
    ours, theirs = pair("mixed_bfloat16", units=64, features=64)
    exact, _ = pair("float32", units=64, features=64)
    x = tf.constant(np.random.default_rng(1).normal(size=(4, 4, 64)), tf.float32)
    upstream = tf.constant(np.random.default_rng(2).normal(size=(4, 4, 64)), tf.float32)
    right = values_and_gradients(exact, x, upstream)
    got = values_and_gradients(ours, x, upstream)
    kerass = values_and_gradients(theirs, x, tf.cast(upstream, tf.bfloat16))
    for value, keras_value, expected in zip(got, kerass, right, strict=True):
        assert value.dtype == np.float32
        # Keras keeps the state in bfloat16, too: ours must be more accurate.
        error = np.abs(value - expected).mean()
        assert error < np.abs(keras_value.astype("float32") - expected).mean()
        assert error < 0.02 * np.abs(expected).mean()


def test_mask_initial_state_and_unknown_length_are_not_supported():
    layer, x = lstm.LSTM(5, name="reader"), tf.zeros((2, 4, 7))
    with pytest.raises(ValueError, match="reader does not support mask"):
        layer(x, mask=tf.ones((2, 4), tf.bool))
    with pytest.raises(ValueError, match="does not support mask"):
        keras.Sequential([keras.layers.Masking(), lstm.LSTM(5, name="reader")])(x)
    with pytest.raises(ValueError, match="does not support initial_state"):
        layer(x, initial_state=[tf.zeros((2, 5))] * 2)
    with pytest.raises(ValueError, match="number of timesteps"):
        lstm.LSTM(5)(keras.Input((None, 7)))
    with pytest.raises(ValueError, match="Received: dropout"):
        lstm.LSTM(5, dropout=0.5)


def gradient_graph(layer, x):
    """The graph of a layer and of its gradients."""

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(outputs)
        return [outputs, *tape.gradient(loss, layer.trainable_variables)]

    concrete = run.get_concrete_function(x)
    return concrete.graph.as_graph_def(), concrete.structured_outputs


def test_the_kernel_is_the_layer_s_whatever_the_machine_has(monkeypatch):
    x = tf.zeros((2, 4, 7))
    cudnn.pretend_gpu(monkeypatch)
    ours, theirs = lstm.LSTM(5), lstm.LSTM(5, lstm_kernel="cudnn")
    graph, _ = gradient_graph(ours, x)
    assert cudnn.cudnn_operations(graph) == []
    assert not [node.op for node in cudnn.nodes(graph) if "While" in node.op]  # Keras's loop
    assert cudnn.cudnn_operations(gradient_graph(theirs, x)[0]) == [
        "CudnnRNNV3",
        "CudnnRNNBackpropV3",
    ]


def test_cudnn_has_one_dtype_under_a_mixed_policy(monkeypatch):
    cudnn.pretend_gpu(monkeypatch)
    layer = lstm.LSTM(5, lstm_kernel="cudnn", dtype="mixed_float16")
    graph, results = gradient_graph(layer, tf.zeros((2, 4, 7)))
    forward, backward = (node for node in cudnn.nodes(graph) if "Cudnn" in node.op)
    assert forward.attr["T"].type == backward.attr["T"].type == tf.float16.as_datatype_enum
    assert {result.dtype for result in results} == {tf.float32}  # cast afterwards


def test_cudnn_without_a_gpu_is_an_error():
    with pytest.raises(ValueError, match="use_cudnn=True was specified"):
        lstm.LSTM(5, lstm_kernel="cudnn")(tf.zeros((2, 4, 7)))
    with pytest.raises(ValueError, match="'ours' or 'cudnn'. Received: 'auto'"):
        lstm.LSTM(5, lstm_kernel="auto")


def test_a_copy_of_a_layer_runs_everywhere(monkeypatch):
    """Model files of a machine with a GPU must be usable on others."""
    with monkeypatch.context() as with_gpu:
        cudnn.pretend_gpu(with_gpu)
        layer = lstm.LSTM(5, lstm_kernel="cudnn")
    assert "lstm_kernel" not in layer.get_config()
    copy = lstm.LSTM.from_config(layer.get_config())
    assert copy.lstm_kernel == "ours" and copy(tf.zeros((2, 4, 7))).shape == (2, 5)


def test_auto_is_cudnn_on_a_gpu_but_not_in_bfloat16(monkeypatch):
    precisions = ("float32", "bfloat16", "float16")
    assert [lstm.choose("auto", p) for p in precisions] == ["ours"] * 3
    with pytest.raises(errors.UsageError, match="--lstm_kernel=cudnn needs a GPU"):
        lstm.choose("cudnn", "float32")
    cudnn.pretend_gpu(monkeypatch)
    assert [lstm.choose("auto", p) for p in precisions] == ["cudnn", "ours", "cudnn"]
    assert [lstm.choose("ours", p) for p in precisions] == ["ours"] * 3
    assert lstm.choose("cudnn", "float16") == "cudnn"
    with pytest.raises(errors.UsageError, match="wrong gradients in bfloat16"):
        lstm.choose("cudnn", "bfloat16")
