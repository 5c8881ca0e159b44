"""Requests of one moment are classified together; nobody's fault is another's."""

import asyncio
import threading
import time

import pytest

from cnnrnn.serving import batcher


def test_a_lone_request_is_answered_at_once_and_those_of_one_moment_together():
    sizes, gate = [], threading.Event()

    def classify(images):
        sizes.append(len(images))
        gate.wait(10)
        return [{"of": image} for image in images]

    async def run():
        batches = batcher.Batcher(classify, batch_size=4, waiting=100)
        first = asyncio.create_task(batches.answers([b"0"]))
        while not sizes:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(batches.answers([b"%d" % i])) for i in range(1, 7)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(run())
    assert [answer[0]["of"] for answer in answers] == [b"%d" % i for i in range(7)]
    assert sizes == [1, 4, 2]


def test_clients_that_ask_again_once_answered_stay_together():
    sizes = []

    def classify(images):
        sizes.append(len(images))
        time.sleep(0.5)
        return [{} for _ in images]

    async def client(batches, number):
        for _ in range(3):
            await asyncio.sleep(0.001 * number)  # the way there and back
            await batches.answers([b""])

    async def run():
        batches = batcher.Batcher(classify, batch_size=8, waiting=100)
        await asyncio.gather(*(client(batches, number) for number in range(4)))

    asyncio.run(run())
    # The first of all leaves alone: how long a batch takes is not yet known.
    assert sizes == [1, 4, 4, 3]


def test_more_than_may_wait_are_turned_away_and_none_is_answered_with_none():
    async def run():
        batches = batcher.Batcher(lambda images: [{}] * len(images), 4, waiting=3)
        assert await batches.answers([]) == []
        with pytest.raises(batcher.Full):
            await batches.answers([b""] * 4)
        return await batches.answers([b""] * 3)

    assert len(asyncio.run(run())) == 3


def test_a_failure_is_told_to_those_it_befell_and_the_next_are_answered():
    def classify(images):
        if b"bad" in images:
            raise ValueError("broken")
        return [{} for _ in images]

    async def run():
        batches = batcher.Batcher(classify, batch_size=1, waiting=10)
        return await asyncio.gather(
            batches.answers([b"bad"]), batches.answers([b"good"]), return_exceptions=True
        )

    failed, answered = asyncio.run(run())
    assert isinstance(failed, ValueError) and answered == [{}]
