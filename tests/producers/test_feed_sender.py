"""The sending side of the live feed, over real ZeroMQ sockets on the loopback interface."""

from __future__ import annotations

import dataclasses
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from producers.feed_sender import FeedScan, FeedSender, OutgoingFrame, SenderSettings, SentScan
from producers.raw_feed import raw_scan
from producers.raw_files import open_raw_files
from producers.raw_format import RAW_RECORD, raw_file_name
from producers.raw_writer import write_raw_files
from producers.simulator import Simulation
from service.errors import FaultError, InputError
from tests.producers.feed_receivers import Receivers, answering, listening, wait_until

WIDTH, HEIGHT = 5, 4
FRAMES = WIDTH * HEIGHT
SECTORS = range(4)


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with listening() as receivers:
        yield receivers


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def pixels_of(sector: int, frame: int) -> NDArray[np.uint16]:
    """A sector frame that says whose it is."""
    pixels = np.full((144, 576), 100 * sector + frame, np.uint16)
    pixels[0, 0], pixels[-1, -1] = 60_001, 60_002  # to see rows and columns turned round
    return pixels


def a_scan(frames: int = FRAMES, *, late_s: tuple[float, ...] = (0.0,) * 4) -> FeedScan:
    return FeedScan(
        scan_number=7,
        frames=frames,
        width_field=WIDTH,
        height_field=HEIGHT,
        sectors=[
            [
                OutgoingFrame(frame, frame, frame % WIDTH, frame // WIDTH, sector, pixels_of(sector, frame))
                for frame in range(frames)
            ]
            for sector in SECTORS
        ],
        late_s=late_s,
    )


def send(settings: SenderSettings, scan: FeedScan) -> SentScan:
    with FeedSender(settings) as sender:
        sender.connect()
        return sender.send(scan)


def test_every_sector_frame_arrives_exactly_once_with_its_header_and_pixels(receivers: Receivers) -> None:
    sent = send(SenderSettings(receivers.to), a_scan())
    assert sent.sector_frames == (FRAMES,) * 4
    messages = receivers.wait_for(4 * FRAMES)
    assert {(m.sector, m.frame_number) for m in messages} == {(s, f) for s in SECTORS for f in range(FRAMES)}
    for m in messages:
        assert (m.scan_number, m.module, m.width_field, m.height_field) == (7, m.sector, WIDTH, HEIGHT)
        assert (m.x, m.y) == (m.frame_number % WIDTH, m.frame_number // WIDTH)
        assert np.array_equal(m.pixels, pixels_of(m.sector, m.frame_number))


@pytest.mark.parametrize("threads", [1, 3, 4])
def test_frame_f_goes_through_thread_f_mod_t_which_sends_in_order(receivers: Receivers, threads: int) -> None:
    send(SenderSettings(receivers.to, threads=threads), a_scan())
    receivers.wait_for(4 * FRAMES)
    for sector in SECTORS:
        for thread in range(threads):
            of_thread = [m for m in receivers.of(sector) if m.thread_id == thread]
            assert [m.frame_number for m in of_thread] == list(range(thread, FRAMES, threads))
            assert {m.frames_this_thread for m in of_thread} == {len(of_thread)}


def test_each_thread_has_a_connection_of_its_own() -> None:
    """One that is stuck does not hold up the others: frames of a sector overtake each other."""
    accepted = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        monitor = pull.get_monitor_socket(zmq.EVENT_ACCEPTED)
        address = f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}"
        scan = dataclasses.replace(a_scan(0), sectors=[[], [], [], []])
        send(SenderSettings({0: address}, threads=3), scan)
        while monitor.poll(200):
            accepted.append(monitor.recv_multipart())
        pull.disable_monitor()
        monitor.close()
    assert len(accepted) == 3


def test_frames_are_not_sent_faster_than_asked(receivers: Receivers) -> None:
    began = time.monotonic()
    sent = send(SenderSettings(receivers.to, rate=100), a_scan())
    messages = receivers.wait_for(4 * FRAMES)
    for m in messages:
        assert m.time - began >= m.frame_number / 100
    assert sent.seconds >= (FRAMES - 1) / 100
    assert sent.late_s > 0


def test_a_frame_that_was_late_does_not_move_the_times_of_the_next_ones(receivers: Receivers) -> None:
    def slow() -> Iterator[OutgoingFrame]:
        for frame in a_scan().sectors[0]:
            if frame.frame_number == 2:
                time.sleep(1.0)  # frames 2 to 19 are due meanwhile
            yield frame

    scan = dataclasses.replace(a_scan(), sectors=[slow(), [], [], []])
    sent = send(SenderSettings({0: receivers.to[0]}, rate=20), scan)
    times = {m.frame_number: m.time for m in receivers.wait_for(FRAMES)}
    assert sent.late_s >= 0.9
    # Had each waited for its period after the one before, these 17 periods would take 0.85 s.
    assert max(times.values()) - times[2] < 0.7


def test_a_late_sector_starts_later(receivers: Receivers) -> None:
    began = time.monotonic()
    send(SenderSettings(receivers.to), a_scan(late_s=(0.0, 0.0, 0.0, 0.3)))
    receivers.wait_for(4 * FRAMES)
    assert min(m.time for m in receivers.of(3)) - began >= 0.3


def test_a_sector_that_comes_to_a_halt_does_not_hold_up_the_others(receivers: Receivers) -> None:
    def halting() -> Iterator[OutgoingFrame]:
        for frame in a_scan().sectors[3]:
            if frame.frame_number == 5:
                wait_until(lambda: sum(m.sector != 3 for m in receivers.messages) == 3 * FRAMES, "other sectors")
            yield frame

    scan = a_scan()
    send(SenderSettings(receivers.to), dataclasses.replace(scan, sectors=[*scan.sectors[:3], halting()]))
    receivers.wait_for(4 * FRAMES)


def test_only_sectors_with_an_address_are_sent(receivers: Receivers) -> None:
    sent = send(SenderSettings({0: receivers.to[0], 2: receivers.to[2]}), a_scan())
    assert sent.sector_frames == (FRAMES, 0, FRAMES, 0)
    assert {m.sector for m in receivers.wait_for(2 * FRAMES)} == {0, 2}


def test_several_scans_go_through_the_same_connections(receivers: Receivers) -> None:
    with FeedSender(SenderSettings(receivers.to)) as sender:
        sender.connect()
        for number in (3, 4):
            sent = sender.send(dataclasses.replace(a_scan(), scan_number=number))
            assert sent.scan_number == number
    assert Counter(m.scan_number for m in receivers.wait_for(8 * FRAMES)) == {3: 4 * FRAMES, 4: 4 * FRAMES}


def test_progress_ends_with_all_sector_frames(receivers: Receivers) -> None:
    done: list[int] = []
    with FeedSender(SenderSettings(receivers.to)) as sender:
        sender.connect()
        sender.send(a_scan(), done.append)
    assert done == sorted(done)
    assert done[-1] == 4 * FRAMES


# Receivers that are not there, not yet, or no more


def test_a_receiver_that_binds_later_is_waited_for() -> None:
    address = free_address()
    came: list[list[bytes]] = []

    def receive() -> None:
        with zmq.Context() as context, context.socket(zmq.PULL) as pull:
            pull.bind(address)
            while len(came) < FRAMES and pull.poll(20_000):
                came.append(pull.recv_multipart())

    with FeedSender(SenderSettings({0: address})) as sender:
        late = threading.Timer(0.3, receive)
        late.start()
        sender.connect()
        sender.send(a_scan())
    late.join()
    assert len(came) == FRAMES


def test_nothing_is_sent_before_the_receiver_says_that_it_is_ready(receivers: Receivers) -> None:
    before: list[int] = []
    answers = [b"not yet", b"", b"ready"]
    with answering(list(answers), lambda: before.append(len(receivers.messages))) as ready:
        send(SenderSettings(receivers.to, ready=(ready,)), a_scan())
    receivers.wait_for(4 * FRAMES)
    assert before == [0, 0, 0]


def test_a_question_that_gets_no_answer_is_asked_again(receivers: Receivers) -> None:
    asked: list[None] = []
    with answering([None, b"ready"], lambda: asked.append(None)) as ready:
        send(SenderSettings(receivers.to, ready=(ready,)), a_scan())
    assert len(asked) == 2
    receivers.wait_for(4 * FRAMES)


def test_every_ready_address_is_asked(receivers: Receivers) -> None:
    asked: list[str] = []
    with (
        answering([b"ready"], lambda: asked.append("first")) as first,
        answering([b"ready"], lambda: asked.append("second")) as second,
    ):
        send(SenderSettings(receivers.to, ready=(first, second)), a_scan())
    assert asked == ["first", "second"]


def test_a_receiver_that_never_answers_is_an_error_that_names_it(receivers: Receivers) -> None:
    address = free_address()
    with pytest.raises(FaultError, match=rf"{address}: not ready within 0.3 s \(no answer\)"):
        send(SenderSettings(receivers.to, ready=(address,), wait_s=0.3), a_scan())
    assert not receivers.messages


def test_a_receiver_that_says_something_else_is_an_error_that_says_what(receivers: Receivers) -> None:
    with (
        answering([b"busy"], lambda: None) as address,
        pytest.raises(FaultError, match="it answered b'busy'"),
        FeedSender(SenderSettings(receivers.to, ready=(address,), wait_s=0.25)) as sender,
    ):
        sender.connect()


def test_nobody_listening_is_an_error_that_names_address_and_sector(receivers: Receivers) -> None:
    address = free_address()
    with pytest.raises(FaultError, match=rf"{address}: nobody listens there \(waited 0.2 s\).* of sector 1 "):
        send(SenderSettings({**receivers.to, 1: address}, wait_s=0.2), a_scan())
    assert not receivers.messages


def test_a_receiver_that_takes_no_frames_is_an_error_and_ends_the_other_sectors(receivers: Receivers) -> None:
    frame = a_scan(1).sectors
    [stuck], [other] = list(frame[0]), list(frame[1])
    many = [stuck._replace(frame_number=number) for number in range(2000)]  # more than all buffers hold
    slow = [other._replace(frame_number=number, slot=100 * number) for number in range(2000)]
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.rcvhwm = 1
        address = f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}"
        settings = SenderSettings({0: address, 1: receivers.to[1]}, rate=10_000, wait_s=0.5)
        scan = FeedScan(1, 2000, WIDTH, HEIGHT, [many, slow, [], []])
        with pytest.raises(FaultError, match=rf"{address}: no frame was taken for 0.5 s \(\d+ were before\)"):
            send(settings, scan)
    assert len(receivers.messages) < 2000


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:70000", "tcp://127.0.0.1:0", "tcp://127.0.0.1", "tcp://*:6001", "udp://x:6001", "6001"]
)
def test_what_is_no_address_is_refused_without_waiting(address: str) -> None:
    with pytest.raises(InputError, match=rf"{re.escape(address)}: expected tcp://HOST:PORT"):
        send(SenderSettings({0: address}), a_scan())


# Raw files


def test_raw_files_arrive_as_they_were_recorded(receivers: Receivers, tmp_path: Path) -> None:
    simulation = Simulation(WIDTH, HEIGHT, frames_per_position=2, electrons=30, seed=5)
    write_raw_files(simulation, tmp_path, scan_number=12, files_per_module=3, out_of_order=4)
    scan = raw_scan(open_raw_files(str(tmp_path)))
    assert send(SenderSettings(receivers.to, threads=2), scan).scan_number == 12
    pixels, _ = simulation.frames(0, 2 * FRAMES)
    for m in receivers.wait_for(8 * FRAMES):
        position = m.frame_number // 2
        assert (m.scan_number, m.width_field, m.height_field, m.module) == (12, WIDTH, HEIGHT, m.sector)
        assert (m.x, m.y) == (position % WIDTH, position // WIDTH)
        assert m.frames_this_thread == FRAMES
        assert np.array_equal(m.pixels, pixels[m.frame_number, 144 * m.sector : 144 * (m.sector + 1)])
    for sector in SECTORS:
        assert sorted(receivers.numbers(sector)) == list(range(2 * FRAMES))


def test_what_raw_files_miss_is_not_sent_and_what_they_repeat_is_sent_again(
    receivers: Receivers, tmp_path: Path
) -> None:
    write_raw_files(Simulation(WIDTH, HEIGHT, electrons=3), tmp_path)
    path = tmp_path / raw_file_name(1, 2, 0)
    records = np.fromfile(path, RAW_RECORD)
    records[[*range(5), 5, 5, *range(7, FRAMES)]].tofile(path)
    send(SenderSettings(receivers.to), raw_scan(open_raw_files(str(tmp_path)), scan_number=99))
    assert {m.scan_number for m in receivers.wait_for(4 * FRAMES)} == {99}
    assert sorted(receivers.numbers(2)) == sorted([*range(6), 5, *range(7, FRAMES)])
    assert sorted(receivers.numbers(1)) == list(range(FRAMES))


def test_frames_of_all_sectors_have_the_same_times_and_a_hole_keeps_its_place(tmp_path: Path) -> None:
    write_raw_files(Simulation(WIDTH, HEIGHT, electrons=3), tmp_path)
    for sector, missing in ((0, 3), (1, 8)):
        path = tmp_path / raw_file_name(1, sector, 0)
        records = np.fromfile(path, RAW_RECORD)
        records[records["frame_number"] != missing].tofile(path)
    scan = raw_scan(open_raw_files(str(tmp_path)))
    for sector in SECTORS:
        assert all(frame.slot == frame.frame_number for frame in scan.sectors[sector])
