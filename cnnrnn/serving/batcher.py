"""Combines concurrent requests into batches."""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]
Function = Callable[[list[bytes]], list[Result]]

# How long a batch that is not full waits for more images, as a fraction of the last batch's
# duration. Clients that were answered together send their next requests within this time; without
# the wait the first of them would be processed alone, and the others one batch later.
_WAIT_FRACTION = 0.02


class QueueFull(Exception):
    """The images would exceed the length of the queue."""


class Batcher:
    """Collects images from several requests into batches for a function.

    While one batch is processed the next one is collected, so batches grow with the load, and a
    single request hardly waits.

    Args:
        function: images -> one result each, in order. Called in a thread, one call at a time.
        batch_size: largest number of images per call.
        queue_size: largest number of images that wait.
    """

    def __init__(self, function: Function, batch_size: int, queue_size: int):
        self._function, self._batch_size, self._queue_size = function, batch_size, queue_size
        self._queue: list[tuple[bytes, asyncio.Future]] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._running: asyncio.Task | None = None
        self._seconds = 0.0  # duration of the last batch

    async def compute(self, images: list[bytes]) -> list[Result]:
        """The function's results for some images, in order.

        If it is cancelled, its images leave the queue.

        Raises:
            QueueFull: too many images are waiting.
        """
        self._drop_cancelled()
        if len(self._queue) + len(images) > self._queue_size:
            raise QueueFull
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._queue += zip(images, futures, strict=True)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.gather(*futures)

    async def _run(self) -> None:
        """Processes the queue until it is empty."""
        loop = asyncio.get_running_loop()
        while self._queue:
            if len(self._queue) < self._batch_size:
                await asyncio.sleep(_WAIT_FRACTION * self._seconds)
            self._drop_cancelled()
            if not self._queue:
                break
            start = time.monotonic()
            batch = self._queue[: self._batch_size]
            del self._queue[: self._batch_size]
            try:
                results = await loop.run_in_executor(
                    self._thread, self._function, [image for image, _ in batch]
                )
            except Exception as error:  # fails the requests of this batch, and no others
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._seconds = time.monotonic() - start
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():  # cancelled if its request was
                    future.set_result(result)

    def _drop_cancelled(self) -> None:
        self._queue = [(image, future) for image, future in self._queue if not future.done()]
