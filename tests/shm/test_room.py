"""Copies share memory one after the other, never at the same time."""

from __future__ import annotations

import threading
import weakref

import numpy as np

from klshm.shm.room import Room


def source(value: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full(1000, value, dtype=np.int64)


def test_what_was_let_go_of_is_used_anew() -> None:
    room = Room()
    first = room.copy(source(1))
    place = first.ctypes.data
    del first
    second = room.copy(source(2))
    assert second.ctypes.data == place
    assert (second == 2).all()


def test_whoever_replaces_a_copy_by_the_next_gets_the_one_before_again() -> None:
    room = Room()
    copy = room.copy(source(0))
    given = [weakref.ref(copy)]
    for value in range(1, 7):
        copy = room.copy(source(value))
        given.append(weakref.ref(copy))
        assert (copy == value).all()
    assert all(each() is not None for each in given)
    assert len({id(each()) for each in given}) == 2


def test_a_copy_that_is_held_stays_as_it_is() -> None:
    room = Room()
    held = [room.copy(source(value)) for value in range(5)]
    assert [int(copy.min()) for copy in held] == [int(copy.max()) for copy in held] == list(range(5))


def test_a_view_of_a_copy_holds_it_too() -> None:
    room = Room()
    view = room.copy(source(1))[10:20]
    others = [room.copy(source(2)) for _ in range(3)]
    assert (view == 1).all() and len(others) == 3


def test_threads_never_get_the_same_memory() -> None:
    room = Room()
    torn = []
    begin = threading.Barrier(4)

    def work(value: int) -> None:
        begin.wait()
        mine = source(value)
        for _ in range(2000):
            copy = room.copy(mine)
            if not (copy == value).all():
                torn.append(value)
            del copy

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []
