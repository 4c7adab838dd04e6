"""Stages that work at the same time: order, errors in both directions, and no thread that is left waiting."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.overlap import AHEAD, Ahead, Feed


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_items_come_in_order_and_no_more_than_some_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with Ahead(items()) as ahead:
        for number, item in enumerate(ahead):
            assert item == number
            assert len(made) <= number + AHEAD + 3
    assert "ahead" not in threads()


def test_an_error_comes_where_the_item_is_waited_for() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise FlashribError("damaged")

    with Ahead(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(FlashribError, match="damaged"):
            next(ahead)


def test_whoever_breaks_off_leaves_no_thread() -> None:
    def broken_off() -> None:
        with Ahead(iter(range(1000))) as ahead:
            next(ahead)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert "ahead" not in threads()


def test_a_stage_gets_all_in_order() -> None:
    seen: list[int] = []
    feed: Feed[int] = Feed()
    with ThreadPoolExecutor(1) as pool:
        feed.stage = pool.submit(lambda: seen.extend(feed))
        for number in range(50):
            feed.put(number)
        feed.end()
    assert seen == list(range(50))


def test_an_error_of_the_stage_is_raised_by_whoever_puts() -> None:
    def breaks() -> None:
        for _ in feed:
            raise FlashribError("the disk is full")

    def put_all() -> None:
        for number in range(50):
            feed.put(number)

    feed: Feed[int] = Feed()
    with ThreadPoolExecutor(1) as pool:
        feed.stage = pool.submit(breaks)
        with pytest.raises(FlashribError, match="the disk is full"):
            put_all()


def test_a_stopped_stage_does_not_take_its_work_for_whole() -> None:
    feed: Feed[int] = Feed()
    for number in range(AHEAD):
        feed.put(number)
    feed.stop()
    with pytest.raises(FlashribError, match="stopped"):
        list(feed)
