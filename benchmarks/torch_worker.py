"""The network built from PyTorch modules; runs in the environment that `peers` creates.

timm's legacy_xception, torch.nn.LSTM with two layers, their product, and a linear layer. The LSTM
has a second bias per layer: 16,384 parameters more than Keras's.
"""

import contextlib
import importlib.util
import pathlib
import sys

import torch

# timm imports torchvision. A torchvision wheel that was built for GPUs cannot load its operators
# beside a CPU build of PyTorch. None of them is used here, but the import of torchvision fails
# unless two of them are defined.
_folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
try:
    for _library in _folder.glob("_C*.so"):
        torch.ops.load_library(_library)
except OSError:
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor x) -> Tensor")

import timm  # noqa: E402
import worker  # noqa: E402

BATCH = {1: 32, 2: 16}
CLASSES = 100


def build(phase: int, precision: str):
    """Returns run(n), which trains n steps, and the number of parameters."""
    cnn = timm.create_model("legacy_xception", pretrained=False, num_classes=0)
    lstm = torch.nn.LSTM(3887, 2048, num_layers=2, batch_first=True)
    head = torch.nn.Linear(2048, CLASSES)
    parameters = [*lstm.parameters(), *head.parameters()]
    if phase == 1:
        cnn.eval()
        optimizer = torch.optim.RMSprop(parameters, lr=1e-3, alpha=0.9, eps=1e-7)
    else:
        cnn.train()
        optimizer = torch.optim.Adam([*cnn.parameters(), *parameters], lr=1e-4, eps=1e-7)
    cnn = cnn.to(memory_format=torch.channels_last)
    size = BATCH[phase]
    image = torch.rand(size, 3, 299, 299).to(memory_format=torch.channels_last) * 2 - 1
    sequence = torch.rand(size, 23, 3887) * 2 - 1
    label = torch.randint(0, CLASSES, (size,))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                with torch.no_grad() if phase == 1 else contextlib.nullcontext():
                    features = cnn(image)
                outputs, _ = lstm(sequence)
                logits = head(features * outputs[:, -1])
            loss = torch.nn.functional.cross_entropy(logits.float(), label)
            loss.backward()
            optimizer.step()
            if not torch.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")

    modules = (cnn, lstm, head)
    count = sum(p.numel() for module in modules for p in module.parameters())
    # Keras counts BatchNorm's moving averages among the parameters.
    buffers = sum(b.numel() for b in cnn.buffers() if b.dim())
    return run, count + buffers


if __name__ == "__main__":
    worker.serve(build, int(sys.argv[1]), sys.argv[2])
