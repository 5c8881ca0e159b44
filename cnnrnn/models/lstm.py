"""The LSTM layer: keras.layers.LSTM with a choice of two kernels.

"cudnn" is Keras's call of CudnnRNNV3, which runs on GPUs only. "ours", below, is written in
TensorFlow operations and runs on every device; its arithmetic is arranged for a CPU.

Without cuDNN, Keras multiplies one timestep at a time, forward and backward: it reads and packs the
weights (128 MB in this network's first layer) again for each timestep, and adds up their gradients
in memory, product by product. Here only what depends on the previous timestep is computed timestep
by timestep. The rest is one large product each, which runs at the processor's full rate:

  forward    z = W'x + b for all timesteps at once, then per timestep z_t += U'h_(t-1)
  backward   per timestep dh_(t-1) = U dz_t, then dW, dU, db and dx for all timesteps at once

Inside the kernel a timestep is a block of columns, (features, B). The recurrent products are then
(8192, 2048) x (2048, B), whose large operand is read in its memory order. They run at 97 to 128
GFLOP/s; as (B, 2048) x (2048, 8192) they run at 50 to 87 (B = 32; the machine's peak is 150).

Symbols: T timesteps, B batch, d input features, n units; gates in Keras's order i, f, g, o.
"""

import keras
import tensorflow as tf

from cnnrnn import errors
from cnnrnn.system import devices

_NAMES = {"ours": "ours (one product for all timesteps)", "cudnn": "cuDNN (through Keras)"}


def choose(requested: str, precision: str) -> str:
    """Resolves --lstm_kernel: "auto" is cuDNN on GPUs except in bfloat16, else our kernel.

    In bfloat16 cuDNN's gradients are wrong: TensorFlow casts everything to float32 around it, and
    its backward pass (DoBackward<bfloat16> in cudnn_rnn_ops.cc, the same in the wheel of 2.21)
    allocates a reserve space of its own without copying the one that the forward pass has filled.

    Args:
        requested: a value of the flag.
        precision: "float32", "bfloat16" or "float16".

    Returns:
        "ours" or "cudnn".

    Raises:
        UsageError: "cudnn" without a GPU or in bfloat16.
    """
    gpus = devices.gpus()
    if requested == "auto":
        return "cudnn" if gpus and precision != "bfloat16" else "ours"
    if requested == "cudnn" and not gpus:
        raise errors.UsageError(
            "--lstm_kernel=cudnn needs a GPU, and TensorFlow has none here: leave the flag out, or "
            "give --lstm_kernel=ours."
        )
    if requested == "cudnn" and precision == "bfloat16":
        raise errors.UsageError(
            "--lstm_kernel=cudnn computes wrong gradients in bfloat16, because of a defect in "
            "TensorFlow: leave the flag out, or give --precision=float16 or --precision=float32."
        )
    return requested


def kernel_name(kernel: str) -> str:
    """A kernel, "ours" or "cudnn", for messages."""
    return _NAMES[kernel]


@keras.saving.register_keras_serializable(package="cnnrnn")
class LSTM(keras.layers.LSTM):
    """keras.layers.LSTM without its options, with the same variables, values and gradients.

    Under a mixed policy the operands of every product of our kernel are in the compute dtype; the
    sums over timesteps, the state, the output and the gradients of the weights are float32. cuDNN
    has one dtype for all of these, the compute dtype: its output and its gradients are only cast
    to float32.

    The kernel is not part of the layer's config: it follows the devices of a process, and a layer
    that is loaded or cloned has ours, which runs everywhere.

    Args:
        units: n.
        lstm_kernel: "ours", or "cudnn", which needs a GPU; see `choose`.
        return_sequences: whether to return every timestep's output.
        kernel_initializer, recurrent_initializer, name, dtype, trainable: as in Keras.
    """

    def __init__(
        self,
        units: int,
        *,
        lstm_kernel: str = "ours",
        return_sequences: bool = False,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        **kwargs,
    ):
        unknown = set(kwargs) - {"name", "dtype", "trainable"}
        if unknown:
            raise ValueError(
                f"LSTM takes units, lstm_kernel, return_sequences, kernel_initializer, "
                f"recurrent_initializer, name, dtype and trainable. Received: "
                f"{', '.join(sorted(unknown))}."
            )
        if lstm_kernel not in _NAMES:
            raise ValueError(f"lstm_kernel must be 'ours' or 'cudnn'. Received: {lstm_kernel!r}.")
        self.lstm_kernel = lstm_kernel
        super().__init__(
            units,
            use_cudnn=lstm_kernel == "cudnn",  # True: Keras raises an error where it is missing
            return_sequences=return_sequences,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            **kwargs,
        )

    def get_config(self):
        ours = ("units", "return_sequences", "kernel_initializer", "recurrent_initializer")
        common = ("name", "dtype", "trainable")
        return {key: value for key, value in super().get_config().items() if key in ours + common}

    def build(self, sequences_shape, initial_state_shape=None):
        if len(sequences_shape) != 3 or None in sequences_shape[1:]:
            raise ValueError(
                f"{self.name} needs a static number of timesteps and of features: expected a "
                f"shape (B, T, d). Received: {tuple(sequences_shape)}."
            )
        super().build(sequences_shape)

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """Runs over a batch of sequences.

        Args:
            sequences: (B, T, d); T is static.
            initial_state, mask: not supported; Keras passes them.
            training: has no effect, since there is no dropout.

        Returns:
            (B, T, n), or (B, n) of the last timestep without return_sequences. float32 under a
            mixed policy.

        Raises:
            ValueError: if a mask or an initial state is given, or the kernel is "cudnn" and
                TensorFlow has no GPU.
        """
        if mask is not None or initial_state is not None:
            given = "mask" if mask is not None else "initial_state"
            raise ValueError(f"{self.name} does not support {given}: use keras.layers.LSTM.")
        if self.lstm_kernel == "cudnn":
            outputs = super().call(sequences, training=training)
            return tf.cast(outputs, self.variable_dtype)
        with keras.src.backend.AutocastScope(None):  # the kernel casts: gradients stay float32
            weights = [
                tf.convert_to_tensor(v)
                for v in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
            ]
        outputs = _lstm(sequences, *weights, compute_dtype=tf.as_dtype(self.compute_dtype))
        return outputs if self.return_sequences else outputs[:, -1]

    def compute_output_spec(self, sequences, initial_state=None, mask=None, training=False):
        spec = super().compute_output_spec(sequences)
        return keras.KerasTensor(spec.shape, self.variable_dtype)


def _lstm(x, kernel, recurrent_kernel, bias, *, compute_dtype: tf.DType) -> tf.Tensor:
    """The LSTM over all timesteps, differentiable once with respect to every argument.

    Args:
        x: (B, T, d).
        kernel: W (d, 4n).
        recurrent_kernel: U (n, 4n).
        bias: b (4n,).
        compute_dtype: data type of the operands of every product.

    Returns:
        The outputs of all timesteps, (B, T, n), in the dtype of the weights.
    """
    timesteps, units = x.shape[1], recurrent_kernel.shape[0]

    def product(a, b, **transposed):
        result = tf.matmul(tf.cast(a, compute_dtype), tf.cast(b, compute_dtype), **transposed)
        return tf.cast(result, kernel.dtype)

    @tf.custom_gradient
    def run(x, kernel, recurrent_kernel, bias):
        batch = tf.shape(x)[0]
        steps = tf.transpose(x, (1, 0, 2))  # (T, B, d)
        flat = tf.reshape(tf.cast(steps, compute_dtype), (timesteps * batch, x.shape[2]))
        z = product(kernel, flat, transpose_a=True, transpose_b=True) + bias[:, tf.newaxis]
        z = tf.unstack(tf.reshape(z, (4 * units, timesteps, batch)), axis=1)
        recurrent = tf.cast(recurrent_kernel, compute_dtype)  # (n, 4n)
        # Transposed once, so that every timestep reads it in memory order. In three dimensions,
        # because TensorFlow folds a plain transpose into each product, which halves their rate.
        by_gate = tf.reshape(recurrent, (units, 4, units))
        transposed = tf.reshape(tf.transpose(by_gate, (1, 2, 0)), (4 * units, units))
        gates, cells, hiddens = [], [], []
        for t in range(timesteps):
            if t > 0:
                z[t] += product(transposed, hiddens[-1])
            i, f, g, o = tf.split(z[t], 4)
            i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
            cell = f * cells[-1] + i * g if t > 0 else i * g
            gates.append((i, f, g, o))
            cells.append(cell)
            hiddens.append(o * tf.tanh(cell))
        outputs = tf.stack(hiddens, axis=1)  # (n, T, B)

        def gradient(upstream):
            """upstream: (B, T, n)."""
            upstream = tf.unstack(tf.transpose(upstream, (1, 2, 0)))  # T x (n, B)
            dz = [None] * timesteps
            dh = dc = 0.0
            for t in reversed(range(timesteps)):
                i, f, g, o = gates[t]
                tanh_cell = tf.tanh(cells[t])
                dh += upstream[t]
                dc += dh * o * (1 - tanh_cell * tanh_cell)
                before = cells[t - 1] if t > 0 else tf.zeros_like(dc)
                parts = (
                    dc * g * i * (1 - i),
                    dc * before * f * (1 - f),
                    dc * i * (1 - g * g),
                    dh * tanh_cell * o * (1 - o),
                )
                dz[t] = tf.cast(tf.concat(parts, axis=0), compute_dtype)
                if t > 0:
                    dh = product(recurrent, dz[t])
                    dc *= f
            dz_all = tf.reshape(tf.stack(dz, axis=1), (4 * units, timesteps * batch))
            d_kernel = product(flat, dz_all, transpose_a=True, transpose_b=True)
            if timesteps > 1:
                # h_(t-1) with dz_t; the first timestep has no previous one.
                before = tf.reshape(outputs[:, :-1], (units, (timesteps - 1) * batch))
                d_recurrent = product(before, dz_all[:, batch:], transpose_b=True)
            else:
                d_recurrent = tf.zeros_like(recurrent_kernel)
            d_bias = tf.reduce_sum(tf.cast(dz_all, kernel.dtype), axis=1)
            # The graph prunes this product where it is not needed, as in the first layer.
            dx = tf.reshape(product(kernel, dz_all), (x.shape[2], timesteps, batch))
            return tf.cast(tf.transpose(dx, (2, 1, 0)), x.dtype), d_kernel, d_recurrent, d_bias

        return tf.transpose(outputs, (2, 1, 0)), gradient

    return run(x, kernel, recurrent_kernel, bias)
