"""Concurrent requests are processed in batches, and fail independently."""

import asyncio
import threading
import time

import pytest

from cnnrnn.serving import batcher


def test_a_single_request_runs_at_once_and_concurrent_ones_in_batches():
    sizes, gate = [], threading.Event()

    def classify(images):
        sizes.append(len(images))
        gate.wait(10)
        return [{"of": image} for image in images]

    async def run():
        batches = batcher.Batcher(classify, batch_size=4, queue_size=100)
        first = asyncio.create_task(batches.compute([b"0"]))
        while not sizes:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(batches.compute([b"%d" % i])) for i in range(1, 7)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(first, *others)

    results = asyncio.run(run())
    assert [result[0]["of"] for result in results] == [b"%d" % i for i in range(7)]
    assert sizes == [1, 4, 2]


def test_clients_that_repeat_their_requests_stay_in_one_batch(monkeypatch):
    monkeypatch.setattr(batcher, "_WAIT_FRACTION", 0.2)  # on a busy machine they take longer
    sizes = []

    def classify(images):
        sizes.append(len(images))
        time.sleep(0.5)
        return [{} for _ in images]

    async def client(batches, number):
        for _ in range(3):
            await asyncio.sleep(0.001 * number)  # network latency
            await batches.compute([b""])

    async def run():
        batches = batcher.Batcher(classify, batch_size=8, queue_size=100)
        await asyncio.gather(*(client(batches, number) for number in range(4)))

    asyncio.run(run())
    # The first request is processed alone: the duration of a batch is not known yet.
    assert sizes == [1, 4, 4, 3]


def test_a_full_queue_and_no_images():
    async def run():
        batches = batcher.Batcher(lambda images: [{}] * len(images), 4, queue_size=3)
        assert await batches.compute([]) == []
        with pytest.raises(batcher.QueueFull):
            await batches.compute([b""] * 4)
        return await batches.compute([b""] * 3)

    assert len(asyncio.run(run())) == 3


def test_cancelled_requests_leave_their_places_and_are_not_computed():
    computed, gate = [], threading.Event()

    def classify(images):
        computed.append(images)
        gate.wait(10)
        return [{} for _ in images]

    async def run():
        batches = batcher.Batcher(classify, batch_size=2, queue_size=3)
        first = asyncio.create_task(batches.compute([b"first"]))
        while not computed:
            await asyncio.sleep(0.01)
        abandoned = asyncio.create_task(batches.compute([b"a", b"b", b"c"]))
        await asyncio.sleep(0.01)
        with pytest.raises(batcher.QueueFull):
            await batches.compute([b"d"])
        abandoned.cancel()
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batches.compute([name])) for name in (b"d", b"e", b"f")]
        await asyncio.sleep(0.01)
        others[1].cancel()
        gate.set()
        await asyncio.gather(first, *others, return_exceptions=True)
        last = asyncio.create_task(batches.compute([b"g"]))  # alone, and cancelled at once
        await asyncio.sleep(0)
        last.cancel()
        await asyncio.sleep(0.1)  # the batch that waited for it is over
        return await batches.compute([b"h"])

    assert asyncio.run(run()) == [{}]
    assert computed == [[b"first"], [b"d", b"f"], [b"h"]]


def test_an_error_fails_only_the_requests_of_its_batch():
    def classify(images):
        if b"bad" in images:
            raise ValueError("broken")
        return [{} for _ in images]

    async def run():
        batches = batcher.Batcher(classify, batch_size=1, queue_size=10)
        return await asyncio.gather(
            batches.compute([b"bad"]), batches.compute([b"good"]), return_exceptions=True
        )

    failed, succeeded = asyncio.run(run())
    assert isinstance(failed, ValueError) and succeeded == [{}]
