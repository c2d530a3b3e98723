"""The live feed over real ZeroMQ sockets on the loopback interface; the sender is plain pyzmq and msgpack."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
import pytest
import zmq

from producers.feed_format import FeedError, FeedHeader, decode_header, encode_header
from producers.live_feed import LiveFeed, LiveFrame, open_live_feed
from service.errors import InputError
from service.metrics import Metrics
from topics.geometry import SECTOR_FRAME_BYTES

MIB = 2**20


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def sending_to(address: str) -> Iterator[Callable[..., object]]:
    """What sends messages of any parts to an address."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.linger = 2000
        push.connect(address)
        yield lambda *parts: push.send_multipart(parts)


def message(frame: int, *, module: int = 2, scan: int = 1) -> tuple[bytes, bytes]:
    header = msgpack.packb([scan, frame, 100, 10, 10, frame % 10, frame // 10, 0, module])
    return header, np.full(SECTOR_FRAME_BYTES // 2, frame, "<u2").tobytes()


def take(feed: LiveFeed, count: int) -> list[LiveFrame]:
    frames: list[LiveFrame] = []
    deadline = time.monotonic() + 20
    while len(frames) < count and time.monotonic() < deadline:
        frames += feed.take(0.1)
    return frames


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"service": "receiver", **labels}) or 0.0


def test_frames_arrive_with_header_and_pixels() -> None:
    address = free_address()
    with open_live_feed({2: address}, None, {}, 64 * MIB, Metrics("receiver")) as feed, sending_to(address) as send:
        for frame in range(5):
            send(*message(frame))
        frames = take(feed, 5)
        assert [f.header.frame_number for f in frames] == list(range(5))
        assert frames[3].header == FeedHeader(1, 3, 100, 10, 10, 3, 0, 0, 2)
        assert (frames[3].pixels == 3).all()
        assert frames[3].pixels.shape == (144, 576)
        assert frames[3].sector == 2


@pytest.mark.parametrize(
    "parts",
    [
        (b"no msgpack \xc1", bytes(SECTOR_FRAME_BYTES)),
        (msgpack.packb([1, 2, 3]), bytes(SECTOR_FRAME_BYTES)),
        (msgpack.packb({"scan": 1}), bytes(SECTOR_FRAME_BYTES)),
        (msgpack.packb([1, -1, 1, 1, 1, 1, 1, 1, 2]), bytes(SECTOR_FRAME_BYTES)),
        (msgpack.packb([1, 2.5, 1, 1, 1, 1, 1, 1, 2]), bytes(SECTOR_FRAME_BYTES)),
        (msgpack.packb([1, True, 1, 1, 1, 1, 1, 1, 2]), bytes(SECTOR_FRAME_BYTES)),
        (message(0)[0], b"short"),
        (message(0)[0], bytes(SECTOR_FRAME_BYTES + 2)),
        (message(0)[0],),
        (*message(0), b"more"),
        (b"", b""),
        message(0, module=1),
    ],
)
def test_what_is_no_sector_frame_of_ours_is_refused_counted_and_does_no_harm(parts: tuple[bytes, ...]) -> None:
    address, metrics = free_address(), Metrics("receiver")
    with open_live_feed({2: address}, None, {}, 64 * MIB, metrics) as feed, sending_to(address) as send:
        send(*parts)
        send(*message(7))
        assert [f.header.frame_number for f in take(feed, 1)] == [7]
    refused = [
        value(metrics, "stemstream_refused_feed_messages_total", reason=r) for r in ("FeedError", "WrongModuleError")
    ]
    assert sum(refused) == 1


def test_a_full_buffer_loses_frames_and_counts_them_by_scan() -> None:
    address, metrics = free_address(), Metrics("receiver")
    limit = 10 * SECTOR_FRAME_BYTES
    with open_live_feed({2: address}, None, {}, limit, metrics) as feed, sending_to(address) as send:
        for frame in range(15):
            send(*message(frame, scan=4))
        wait_until(lambda: value(metrics, "stemstream_received_sector_frames_total", sector="2") == 15)
        frames = take(feed, 10)
        assert [f.header.frame_number for f in frames] == list(range(10))
        assert feed.take_lost(2, 4) == 5
        assert feed.take_lost(2, 4) == 0
        feed.release(10)
        send(*message(20, scan=4))
        assert [f.header.frame_number for f in take(feed, 1)] == [20]


def test_a_sender_that_asks_is_answered_once_frames_are_taken() -> None:
    address, ready = free_address(), free_address()
    with (
        open_live_feed({0: address}, ready, {}, MIB, Metrics("receiver")) as feed,
        zmq.Context() as context,
        context.socket(zmq.REQ) as ask,
    ):
        ask.linger = 0
        ask.connect(ready)
        ask.send(b"anything")
        assert ask.poll(300) == 0
        feed.ready = True
        assert ask.poll(5000)
        assert ask.recv() == b"ready"
        ask.send_string("again")
        assert ask.poll(5000)
        assert ask.recv_string() == "ready"


def test_the_tee_passes_every_message_on_as_it_is() -> None:
    address, other = free_address(), free_address()
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind(other)
        with open_live_feed({2: address}, None, {2: other}, 64 * MIB, Metrics("receiver")) as feed:
            with sending_to(address) as send:
                for frame in range(4):
                    send(*message(frame))
                take(feed, 4)
            for frame in range(4):
                assert pull.poll(5000)
                assert tuple(pull.recv_multipart()) == message(frame)


def test_a_tee_that_nobody_reads_holds_nothing_back() -> None:
    address, metrics = free_address(), Metrics("receiver")
    with (
        open_live_feed({2: address}, None, {2: free_address()}, 64 * MIB, metrics) as feed,
        sending_to(address) as send,
    ):
        for frame in range(100):
            send(*message(frame))
        assert len(take(feed, 100)) == 100
        assert value(metrics, "stemstream_tee_dropped_messages_total", sector="2") > 0


def test_an_address_in_use_is_one_clear_error() -> None:
    address = free_address()
    metrics = Metrics("receiver")
    with (
        open_live_feed({0: address}, None, {}, MIB, metrics),
        pytest.raises(InputError, match=address),
        open_live_feed({0: address}, None, {}, MIB, Metrics("another")),
    ):
        pass


def test_headers_survive_the_wire() -> None:
    header = FeedHeader(1, 2**32 - 1, 3, 4, 5, 6, 7, 8, 3)
    assert decode_header(encode_header(header)) == header
    with pytest.raises(FeedError):
        decode_header(b"\x91" * 500)
