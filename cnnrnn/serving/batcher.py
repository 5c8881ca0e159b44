"""Requests that come at the same time, answered together."""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]
Function = Callable[[list[bytes]], list[Answer]]

# Of the last batch's time, that one which is not full waits for company: clients that have just
# been answered ask again within it, and would else find that the first of them left alone.
_WAIT_SHARE = 0.02


class Full(Exception):
    """More images wait than may."""


class Batcher:
    """Gathers images of several requests into batches for a function that takes many.

    While a batch is answered the next one gathers, so under load batches grow by themselves, and
    a lone request waits for next to nothing.

    Args:
        function: images -> their answers, in order; called in a thread, never twice at a time.
        batch_size: the most at a time.
        waiting: the most that may wait; more are turned away.
    """

    def __init__(self, function: Function, batch_size: int, waiting: int):
        self._function, self._batch_size, self._most = function, batch_size, waiting
        self._waiting: list[tuple[bytes, asyncio.Future]] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._running: asyncio.Task | None = None
        self._seconds = 0.0  # that the last batch took

    async def answers(self, images: list[bytes]) -> list[Answer]:
        """The images' answers, in order.

        Raises:
            Full: too many wait already.
        """
        if len(self._waiting) + len(images) > self._most:
            raise Full
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting += zip(images, futures, strict=True)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.gather(*futures)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if len(self._waiting) < self._batch_size:
                await asyncio.sleep(_WAIT_SHARE * self._seconds)
            start = time.monotonic()
            batch = self._waiting[: self._batch_size]
            del self._waiting[: self._batch_size]
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._function, [image for image, _ in batch]
                )
            except Exception as error:  # of the function: whoever asked is told, the rest go on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._seconds = time.monotonic() - start
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # one that asked may have gone
                    future.set_result(answer)
