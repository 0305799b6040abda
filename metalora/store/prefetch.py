"""Reading ahead: the next batches are read from disk while the present one is trained on."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], ahead: int = 3) -> Generator[Item, None, None]:
    """The same items in the same order, made by a thread up to `ahead` of the taker; its errors are raised here."""
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None, last: bool) -> None:
        while not stopped.is_set():
            try:
                ready.put((item, error, last), timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put(item, None, False)
                if stopped.is_set():
                    return
            put(None, None, True)
        except BaseException as error:  # noqa: BLE001  # raised again where the items are taken
            put(None, error, True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]  # an item may itself be None
    finally:
        stopped.set()
        thread.join()
