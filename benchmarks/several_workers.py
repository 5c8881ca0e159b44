"""Training steps of one process on all cores, and of workers with a share of the cores each.

    python -m benchmarks.several_workers [--phase=2] [--batch=8] [--workers=2] [--rounds=3]
        [--steps=2] [--precision=bfloat16] [--gradients=float32]

Full-size network, synthetic data. Both take turns, some steps each per round, so that a machine
whose speed drifts slows both. --gradients=bfloat16 halves the bytes of the gradients, by rounding
them before they are summed over the workers. Bytes are those of the loopback interface.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks import contestants


@dataclasses.dataclass
class Group:
    """Processes that train together.

    Attributes:
        processes: of the workers.
        seconds: per step, of each round.
        megabytes: sent by each worker per step, of each round.
        losses: of all steps.
    """

    processes: list[subprocess.Popen]
    seconds: list[float] = dataclasses.field(default_factory=list)
    megabytes: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)

    def train(self, steps: int) -> None:
        """Trains some steps and measures them."""
        before, start = loopback_bytes(), time.perf_counter()
        for process in self.processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        answers = [json.loads(read_line(process)) for process in self.processes]
        self.seconds.append((time.perf_counter() - start) / steps)
        sent = (loopback_bytes() - before) / steps / len(self.processes)
        self.megabytes.append(sent / 1e6)
        self.losses += answers[0]


def read_line(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended with exit code {process.wait()}, see its messages above")
    return line


def loopback_bytes() -> int:
    """Bytes received by the loopback interface, which are all that were sent on it."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    return 0


def start(count: int, arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Group:
    """Starts workers, which `stack` ends; returns once each has done its first step."""
    from cnnrnn.system import child_process, scheduler

    addresses = scheduler.local_addresses(count)
    command = [sys.executable, "-m", "benchmarks.several_workers", "--child"]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("phase", "batch", "precision")]
    command += [f"--gradients={arguments.gradients}"]
    processes = []
    for index in range(count):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        if count > 1:
            environment[scheduler.TF_CONFIG] = scheduler.tf_config(addresses, index)
        with child_process.on_cores(index, count):
            process = subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        stack.callback(process.kill)
        processes.append(process)
    for process in processes:
        read_line(process)
    return Group(processes)


def child(arguments: argparse.Namespace) -> None:
    """A worker: trains as many steps as each line of standard input says."""
    import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

    # isort: split
    import tensorflow as tf

    from cnnrnn import config as config_lib
    from cnnrnn import phases
    from cnnrnn.system import cluster, devices, workers
    from cnnrnn.training import steps, train_state

    found = cluster.find("auto")
    strategy = found.join(600) if found else devices.strategy()
    settings = config_lib.Config.of(precision=arguments.precision)
    network = train_state.build_network(contestants.CLASSES, settings, strategy)
    phase = (phases.PHASE1, phases.PHASE2)[arguments.phase - 1]
    state = train_state.create(network, phase, settings, strategy)
    step = steps.make_train_step(state, strategy, arguments.batch)
    if arguments.gradients == "bfloat16":
        round_gradients(state.optimizer)
    share = workers.Workers(strategy).share
    own = slice(
        share.index * share.size(arguments.batch), (share.index + 1) * share.size(arguments.batch)
    )
    batch = contestants.batch_of(arguments.batch)
    del batch["image" if arguments.phase == 1 else "features"]
    batch = {name: tf.constant(value[own]) for name, value in batch.items()}

    def run(count: int) -> list[float]:
        return [float(step(batch)[0].numpy()[0]) for _ in range(count)]

    run(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(int(line))), flush=True)


def round_gradients(optimizer) -> None:
    """Makes an optimizer sum gradients over workers in bfloat16."""
    import tensorflow as tf

    exact = optimizer._all_reduce_sum_gradients

    def rounded(pairs):
        gradients = [(tf.cast(gradient, tf.bfloat16), variable) for gradient, variable in pairs]
        return [
            (tf.cast(gradient, tf.float32), variable) for gradient, variable in exact(gradients)
        ]

    optimizer._all_reduce_sum_gradients = rounded


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.several_workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--phase", type=int, default=2, choices=(1, 2))
    parser.add_argument("--batch", type=int, default=8, help="images per step, of all workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="per round")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--gradients", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    with contextlib.ExitStack() as stack:
        groups = {}
        for count in (1, arguments.workers):
            groups[count] = start(count, arguments, stack)
        for _ in range(arguments.rounds):
            for group in groups.values():
                group.train(arguments.steps)
    alone, several = groups[1], groups[arguments.workers]
    ratio = statistics.median(a / b for a, b in zip(alone.seconds, several.seconds, strict=True))
    print(
        f"phase {arguments.phase}, batch {arguments.batch}, {arguments.precision}, gradients in "
        f"{arguments.gradients}, {os.cpu_count()} cores"
    )
    for count, group in groups.items():
        seconds = statistics.median(group.seconds)
        print(
            f"  {count} process(es): {arguments.batch / seconds:.2f} images/s, {seconds:.2f} s a "
            f"step, {statistics.median(group.megabytes):,.0f} MB sent by each; last loss "
            f"{group.losses[-1]:.5f}"
        )
    print(f"  speed of {arguments.workers} workers relative to one process: {ratio:.2f}")


if __name__ == "__main__":
    main()
