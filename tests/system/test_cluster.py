"""Which workers there are, by TF_CONFIG and by Slurm's variables; waiting for them."""

import json
import socket
import time

import pytest

from cnnrnn import errors
from cnnrnn.system import cluster, scheduler

SLURM = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch):
    for name in (scheduler.TF_CONFIG, *SLURM, "SLURMD_NODENAME"):
        monkeypatch.setenv(name, "")  # so that what a test sets is removed afterwards
        monkeypatch.delenv(name)


def tf_config(monkeypatch, jobs, task_type="worker", index=0):
    value = {"cluster": jobs, "task": {"type": task_type, "index": index}}
    monkeypatch.setenv(scheduler.TF_CONFIG, json.dumps(value))


def test_without_a_scheduler_there_is_no_cluster():
    assert cluster.find("auto") is None
    with pytest.raises(errors.UsageError, match="--strategy=multiworker needs TF_CONFIG"):
        cluster.find("multiworker")


def test_workers_of_tf_config(monkeypatch):
    tf_config(monkeypatch, {"worker": ["a:1", "b:2"]}, index=1)
    found = cluster.find("auto")
    assert (found.addresses, found.index) == (("a:1", "b:2"), 1)
    assert cluster.find("mirrored") is None


def test_the_chief_comes_first(monkeypatch):
    jobs = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    tf_config(monkeypatch, jobs, index=1)
    assert (cluster.find("auto").addresses, cluster.find("auto").index) == (
        ("c:3", "a:1", "b:2"),
        2,
    )
    tf_config(monkeypatch, jobs, task_type="chief")
    assert cluster.find("auto").index == 0


def test_a_single_worker_trains_alone(monkeypatch):
    tf_config(monkeypatch, {"worker": ["a:1"]})
    assert cluster.find("multiworker") is None


@pytest.mark.parametrize(
    "value, problem",
    [
        ("{", "Expecting property name"),
        ("[]", "TF_CONFIG is not valid"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "there is no task"),
        ('{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
         "'a' is not host:port"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "ps", "index": 0}}',
         "there are tasks of type ps"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}',
         "there is no task 3"),
    ],
)  # fmt: skip
def test_tf_config_that_is_not_valid(monkeypatch, value, problem):
    monkeypatch.setenv(scheduler.TF_CONFIG, value)
    with pytest.raises(errors.UsageError, match=problem):
        cluster.find("auto")


@pytest.mark.parametrize(
    "address, problem",
    [
        *((f"a:{port}", "no port from 1 to 65535") for port in (0, 65536, 99999)),
        *((f"{host}:1", "empty or too long") for host in ("a..b", ".a", f"{'a' * 64}.b")),
    ],
)
def test_addresses_that_no_socket_takes(monkeypatch, address, problem):
    tf_config(monkeypatch, {"worker": ["a:1", address]})
    with pytest.raises(errors.UsageError, match=f"TF_CONFIG is not valid.*{problem}"):
        cluster.find("auto")


@pytest.mark.parametrize("address", ["a:65535", "a.b.:1", "[fe80::1%eth0]:1", "127.0.0.1:1"])
def test_addresses_that_sockets_take(monkeypatch, address):
    tf_config(monkeypatch, {"worker": ["a:1", address]})
    assert cluster.find("auto").addresses == ("a:1", address)


def test_workers_of_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    found = cluster.find("auto")
    assert found.addresses == ("node01:8888", "node01:8889", "node02:8888")
    assert found.index == 2
    assert found.resolver.cluster_spec().num_tasks("worker") == 3


def test_slurm_nodes_in_another_order_than_tensorflow_expects(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURMD_NODENAME", "node01")
    with pytest.raises(errors.UsageError, match="runs on node01, and TensorFlow expects it on"):
        cluster.find("auto")


def test_a_batch_script_of_slurm_trains_alone(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "3")
    assert cluster.find("auto") is None


def test_slurm_variables_that_are_not_complete(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    with pytest.raises(errors.UsageError, match="Slurm's variables are not valid"):
        cluster.find("auto")


def test_hidden_variables(monkeypatch):
    tf_config(monkeypatch, {"worker": ["a:1", "b:2"]})
    scheduler.hide()
    assert cluster.find("auto") is None


def test_a_worker_that_does_not_come_is_named():
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # without listening
        addresses = tuple(
            f"127.0.0.1:{port}"
            for port in (free_port(), there.getsockname()[1], unused.getsockname()[1])
        )
        with pytest.raises(errors.RunError) as error:
            cluster.wait_for_all(addresses, 0, seconds=0.1)
    message = str(error.value)
    assert f"worker 2 ({addresses[2]}) did not connect within 1 s" in message
    assert "worker 1" not in message


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.RunError, match=f"cannot listen on port {port}"):
            cluster.wait_for_all((f"127.0.0.1:{port}", "127.0.0.1:9"), 0, seconds=0.1)


def test_workers_with_addresses_of_ipv6_find_each_other():
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6")
    with other:
        addresses = (f"[::1]:{free_port()}", f"[::1]:{other.getsockname()[1]}")
        with cluster._listening(addresses[0], time.monotonic() + 5):
            assert all(map(cluster._answers, addresses))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
