"""Two workers on two virtual hosts, whose network is then disturbed. By hand, as root, on Linux:

    PYTHONPATH=. python tests/two_hosts.py [SCENARIO ...] [--program=cnnrnn]

Each host is a network namespace of its own, at the ends of a virtual cable. In each scenario the
workers train until the disturbance; printed is how each ended, how long after it, and its last
message. The small network of the tests unless --program is "cnnrnn".
"""

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from cnnrnn.system import scheduler
from tests import helpers

HOSTS = ("cnnrnn-0", "cnnrnn-1")
ADDRESSES = ("10.99.0.1", "10.99.0.2")
FULL = (sys.executable, "-P", "-m", "cnnrnn.main")
LIMIT_SECONDS = 240  # for a scenario to end after the disturbance
FLAGS = ("phase1", "--dataset=digits", "--xception_weights=none", "--batch_size=16")


def shell(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Two hosts and a cable between them. Needs ip, tc and iptables."""
    for host in HOSTS:
        shell(f"ip netns add {host}")
    try:
        shell("ip link add cable0 type veth peer name cable1")
        for i, host in enumerate(HOSTS):
            shell(f"ip link set cable{i} netns {host}")
            shell(f"ip -n {host} addr add {ADDRESSES[i]}/24 dev cable{i}")
            shell(f"ip -n {host} link set cable{i} up")
            shell(f"ip -n {host} link set lo up")
        yield
    finally:
        for host in HOSTS:
            shell(f"ip netns del {host}")


def start(folder: pathlib.Path, index: int, program: tuple[str, ...], *flags: str):
    """A worker on its host; returns the process and its log."""
    addresses = [f"{address}:2222" for address in ADDRESSES]
    log = folder / f"worker{index}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            ["ip", "netns", "exec", HOSTS[index], *program, *FLAGS, *flags,
             f"--runs_dir={folder}/runs{index}", f"--feature_cache={folder}/features{index}"],
            env=os.environ
            | {
                scheduler.TF_CONFIG: scheduler.tf_config(addresses, index),
                "PYTHONPATH": str(helpers.REPOSITORY),
                "PYTHONUNBUFFERED": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    return process, log


def last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "(nothing)")


def slow(workers) -> None:
    """20 Mbit/s in each direction, and 1 % of the packets lost."""
    for i, host in enumerate(HOSTS):
        limit = "tbf rate 20mbit burst 32kbit latency 400ms"
        shell(f"ip netns exec {host} tc qdisc add dev cable{i} root {limit}")
        lost = "-m statistic --mode random --probability 0.01 -j DROP"
        shell(f"ip netns exec {host} iptables -A INPUT {lost}")


def cut(workers) -> None:
    """All packets lost, without any message to either side."""
    for host in HOSTS:
        shell(f"ip netns exec {host} iptables -A INPUT -j DROP")


def hang(workers) -> None:
    """A worker that is alive and does nothing."""
    os.kill(workers[1][0].pid, signal.SIGSTOP)


def kill_chief(workers) -> None:
    os.kill(workers[0][0].pid, signal.SIGKILL)


# Name, disturbance, whether training goes on to its end.
SCENARIOS: tuple[tuple[str, Callable | None, bool], ...] = (
    ("undisturbed", None, True),
    ("slow network", slow, True),
    ("network cut", cut, False),
    ("worker 1 hangs", hang, False),
    ("chief killed", kill_chief, False),
)


def run(name: str, disturb: Callable | None, ends: bool, program: tuple[str, ...]) -> None:
    """Trains with a disturbance and prints what followed."""
    epochs = "--epochs=3,1" if ends else "--epochs=100000,1"
    with network(), tempfile.TemporaryDirectory() as folder:
        workers = [start(pathlib.Path(folder), i, program, epochs) for i in range(2)]
        try:
            while "epoch 2/" not in workers[0][1].read_text() and not ends:
                if any(process.poll() is not None for process, _ in workers):
                    raise SystemExit("\n".join(log.read_text() for _, log in workers))
                time.sleep(0.2)
            disturbed = time.monotonic()
            if disturb:
                disturb(workers)
            ended = {}
            while len(ended) < 2 and time.monotonic() - disturbed < LIMIT_SECONDS:
                for i, (process, _) in enumerate(workers):
                    if i not in ended and process.poll() is not None:
                        ended[i] = time.monotonic() - disturbed
                time.sleep(0.2)
                if name == "worker 1 hangs" and 0 in ended and 1 not in ended:
                    os.kill(workers[1][0].pid, signal.SIGCONT)
            print(f"\n{name}")
            for i, (process, log) in enumerate(workers):
                how = (
                    f"exit code {process.returncode} after {ended[i]:.0f} s"
                    if i in ended
                    else (f"still running after {LIMIT_SECONDS} s")
                )
                print(f"  worker {i}: {how}: {last_line(log)[:200]}", flush=True)
        finally:
            for process, _ in workers:
                process.kill()
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", choices=("small", "cnnrnn"), default="small")
    parser.add_argument("scenarios", nargs="*", help="names of scenarios; all if none is given")
    arguments = parser.parse_args()
    program = helpers.SMALL_PROGRAM if arguments.program == "small" else FULL
    for name, disturb, ends in SCENARIOS:
        if not arguments.scenarios or name in arguments.scenarios:
            run(name, disturb, ends, program)


if __name__ == "__main__":
    main()
