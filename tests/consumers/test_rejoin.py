"""Rejoining the sectors: in whatever order the streams arrive, the joined sequence is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.rejoin import Joined, JoinedChunk, JoinedEnd, PartitionMerge, Refusal
from tests.consumers.streams import END, GEOMETRY, PARTITION, START, Sent, four, sent, stream

# What was joined, as something that can be compared: ordinal, place, and each sector's own message or None.
Row = tuple[int, int, tuple[int | None, ...]]


def row(joined: Joined) -> Row:
    if isinstance(joined, JoinedChunk):
        return joined.ordinal, joined.index, tuple(None if c is None else id(c) for c in joined.sectors)
    assert isinstance(joined, JoinedEnd)
    return joined.ordinal, END, tuple(None if e is None else id(e) for e in joined.ends)


def shown(joined: Iterable[Joined]) -> list[str]:
    """What was joined, for people: "7/4 0.23" has chunk 4 of scan 7, missing in sector 1."""
    lines = []
    for one in joined:
        parts = one.sectors if isinstance(one, JoinedChunk) else one.ends
        place = f"{one.ordinal}/{one.index}" if isinstance(one, JoinedChunk) else f"{one.ordinal} end"
        lines.append(f"{place} {''.join('.' if part is None else str(s) for s, part in enumerate(parts))}")
    return lines


def push(merge: PartitionMerge, sector: int, message: Sent) -> Refusal | None:
    if message.message is None:
        merge.skip(sector, message.offset)
        return None
    return merge.push(sector, message.offset, message.message, 100)


def merged(streams: list[list[Sent]], merge: PartitionMerge | None = None) -> list[Joined]:
    """Everything one sector after the other, then all that can be joined."""
    merge = merge or PartitionMerge()
    for sector, messages in enumerate(streams):
        for message in messages:
            push(merge, sector, message)
    return list(merge.pop())


# The model: in plain words, without queues, from the whole of what came.


def accepted(messages: list[Sent]) -> list[Sent]:
    """What of one stream counts: of the newest epoch so far, and further than all before."""
    epoch, place, kept = -1, (-1, START), []
    for message in messages:
        if message.message is None or message.epoch < epoch:
            continue
        epoch = message.epoch
        if message.place is not None and message.place > place:
            place = message.place
            kept.append(message)
    return kept


def model(streams: list[list[Sent]]) -> list[Row]:
    """All places that some stream has, as far as every stream is known to have come."""
    kept = [{message.place: message for message in accepted(messages)} for messages in streams]
    if not all(kept):
        return []
    horizon = min(max(place for place in sector if place is not None) for sector in kept)
    places = sorted({place for sector in kept for place in sector if place is not None and place <= horizon})
    rows = []
    for ordinal, place in places:
        if place != START:
            parts = tuple(id(sector[ordinal, place].message) if (ordinal, place) in sector else None for sector in kept)
            rows.append((ordinal, place, parts))
    return rows


# Streams drawn at random.


@st.composite
def sector_stream(draw: st.DrawFn, sector: int, scans: list[tuple[int, int]]) -> list[Sent]:
    """One sector's messages of these scans (ordinal, chunks): lossy, repeated, resumed, superseded."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    loss, noise = draw(st.sampled_from([(0, 0), (0.2, 0), (0.2, 0.2), (0.5, 0.3)]))
    messages: list[Sent] = []
    epoch = 0

    def say(text: str, of_epoch: int) -> None:
        messages.append(sent(2 * len(messages) + int(random.integers(2)), sector, text, of_epoch))

    for ordinal, chunks in scans:
        if random.random() < loss / 2:
            continue  # the sector missed the scan
        texts = [f"{ordinal} start", *(f"{ordinal}/{PARTITION + 3 * i}" for i in range(chunks)), f"{ordinal} end"]
        for text in texts:
            if random.random() < noise / 2:  # a new receiver takes over
                epoch += int(random.integers(1, 3))
                say(f"{ordinal} resume", epoch)
            if random.random() >= loss:
                say(text, epoch)
            if random.random() < noise:
                say(str(random.choice(texts)), epoch)  # late, repeated, or too early
            if random.random() < noise / 2:
                say(str(random.choice(texts)), max(0, epoch - 1))  # from a superseded receiver
            if random.random() < noise / 2:
                say("?", 0)
    return messages


@st.composite
def four_streams(draw: st.DrawFn) -> list[list[Sent]]:
    chunks = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    scans = [(10 + 7 * i, n) for i, n in enumerate(chunks)]
    return [draw(sector_stream(sector, scans)) for sector in range(4)]


def arrivals(streams: list[list[Sent]], seed: int, burst: int) -> list[tuple[int, Sent]]:
    """The messages in some order of arrival: each stream in its own, in bursts."""
    random = np.random.default_rng(seed)
    left = [list(messages) for messages in streams]
    order = []
    while any(left):
        sector = int(random.choice([s for s in range(4) if left[s]]))
        for _ in range(int(random.integers(1, burst + 1))):
            if left[sector]:
                order.append((sector, left[sector].pop(0)))
    return order


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=100, deadline=None)
@given(streams=four_streams(), seed=seeds, burst=st.sampled_from([1, 3, 100]))
def test_any_order_of_arrival_gives_the_sequence_of_the_model(streams: list[list[Sent]], seed: int, burst: int) -> None:
    merge, found = PartitionMerge(), []
    came: list[list[Sent]] = [[], [], [], []]
    for sector, message in arrivals(streams, seed, burst):
        push(merge, sector, message)
        came[sector].append(message)
        found += [row(joined) for joined in merge.pop()]
        assert found == model(came)  # at every moment: nothing too early, nothing held back
    assert found == model(streams)


@settings(max_examples=100, deadline=None)
@given(
    streams=four_streams(),
    seed=seeds,
    burst=st.sampled_from([1, 4]),
    stops=st.lists(st.integers(1, 12), min_size=1, max_size=6),
)
@example(
    streams=four(
        "10 start, 10/1, ^1, 10 resume, 10/4, 10 end",
        "10 start, 10/1, 10/4, 10 end",
        "10 start, 10/1, 10/4, 10 end",
        "10 start, 10/1, 10/4, 10 end",
    ),
    seed=0,
    burst=100,
    stops=[3, 2, 1, 1],
).via("a chunk of the older epoch waits when the counter is killed")
def test_a_successor_goes_on_with_exactly_what_is_left(
    streams: list[list[Sent]], seed: int, burst: int, stops: list[int]
) -> None:
    found: list[Row] = []
    # What the broker keeps of each sector: offset and metadata, if they were ever committed.
    committed: list[tuple[int, str] | None] = [None] * 4
    for stop in [*stops, 10**6]:
        merge = PartitionMerge.restored(place[1] if place else None for place in committed)
        left = [
            [m for m in messages if place is None or m.offset >= place[0]]
            for messages, place in zip(streams, committed, strict=True)
        ]
        emitted = 0
        # Killed after so many messages were joined, or, when there are none, after so many arrived.
        for arrived, (sector, message) in enumerate(arrivals(left, seed, burst)):
            if emitted >= stop or arrived >= 5 * stop:
                break
            push(merge, sector, message)
            for joined in merge.pop():
                found.append(row(joined))
                emitted += 1
                if emitted >= stop:
                    break
        for sector in range(4):
            offset = merge.committable(sector)
            if offset is not None:
                committed[sector] = offset, merge.state()
    assert found == model(streams)


@settings(max_examples=40, deadline=None)
@given(streams=four_streams(), seed=seeds)
def test_what_waits_is_what_was_accepted_and_not_joined(streams: list[list[Sent]], seed: int) -> None:
    merge = PartitionMerge()
    joined = [0] * 4
    taken = [0] * 4
    for sector, message in arrivals(streams, seed, 3):
        if push(merge, sector, message) is None and message.place is not None:
            taken[sector] += 1
        before = [merge.waiting_bytes(s) for s in range(4)]
        list(merge.pop())
        for s in range(4):
            joined[s] += (before[s] - merge.waiting_bytes(s)) // 100
            assert merge.waiting_bytes(s) == 100 * (taken[s] - joined[s])
    assert taken == [len(accepted(messages)) for messages in streams]


# By example.


def test_four_complete_streams_are_joined_chunk_by_chunk() -> None:
    texts = "7 start, 7/1, 7/4, 7 end"
    joined = merged(four(*[texts] * 4))
    assert shown(joined) == ["7/1 0123", "7/4 0123", "7 end 0123"]
    assert isinstance(joined[0], JoinedChunk)
    assert joined[0].geometry == GEOMETRY
    assert [c.header.sector for c in joined[0].sectors if c] == [0, 1, 2, 3]


def test_a_stream_without_a_head_is_waited_for() -> None:
    texts = "7 start, 7/1, 7/4, 7 end"
    merge = PartitionMerge()
    assert merged(four(texts, texts, texts, ""), merge) == []
    for message, expected in zip(stream(3, texts), [[], ["7/1 0123"], ["7/4 0123"], ["7 end 0123"]], strict=True):
        push(merge, 3, message)
        assert shown(merge.pop()) == expected


@pytest.mark.parametrize(
    ("lossy", "expected"),
    [
        ("7 start, 7/4, 7 end", ["7/1 012.", "7/4 0123", "7 end 0123"]),
        ("7 start, 7/1, 7 end", ["7/1 0123", "7/4 012.", "7 end 0123"]),
        ("7 start, 7 end", ["7/1 012.", "7/4 012.", "7 end 0123"]),
        ("7/1, 7/4, 7 end", ["7/1 0123", "7/4 0123", "7 end 0123"]),
        ("7 start, 7/1, 7/4, 9 start", ["7/1 0123", "7/4 0123", "7 end 012."]),
        ("9 start", ["7/1 012.", "7/4 012.", "7 end 012."]),
        ("9/1", ["7/1 012.", "7/4 012.", "7 end 012."]),
        ("7 start, 7/1, ?, 7 end", ["7/1 0123", "7/4 012.", "7 end 0123"]),
        ("7 start, 7/1, ?", ["7/1 0123"]),
        ("7 start, 7/1", ["7/1 0123"]),
    ],
    ids=[
        "first chunk lost",
        "last chunk lost",
        "all chunks lost",
        "no start marker",
        "no end marker",
        "scan missed",
        "scan missed, next without start marker",
        "a chunk that cannot be decoded",
        "a chunk that cannot be decoded, and nothing after it",
        "nothing more yet",
    ],
)
def test_a_sector_has_lost_what_its_own_head_is_past(lossy: str, expected: list[str]) -> None:
    texts = "7 start, 7/1, 7/4, 7 end"
    assert shown(merged(four(texts, texts, texts, lossy))) == expected


def test_a_chunk_that_only_one_sector_has_is_joined_alone() -> None:
    streams = four("7 start, 7 end", "7 start, 7/4, 7 end", "7 start, 7 end", "7 start, 7 end")
    assert shown(merged(streams)) == ["7/4 .1..", "7 end 0123"]


def test_a_partition_without_chunks_has_an_end_all_the_same() -> None:
    assert shown(merged(four(*["7 start, 7 end"] * 4))) == ["7 end 0123"]


@pytest.mark.parametrize(
    ("text", "refusals"),
    [
        ("7 start, 7/4, 7/1", [None, None, Refusal.OUT_OF_ORDER]),
        ("7 start, 7/4, 7/4", [None, None, Refusal.OUT_OF_ORDER]),
        ("7 start, 7 start", [None, Refusal.OUT_OF_ORDER]),
        ("7 end, 7/4", [None, Refusal.OUT_OF_ORDER]),
        ("9 start, 7 end", [None, Refusal.OUT_OF_ORDER]),
        ("^5, 7 start, ^4, 7/1", [None, Refusal.OLD_EPOCH]),
        ("^5, 7 start, ^6, 7 resume, ^5, 7/1, ^6, 7/1", [None, None, Refusal.OLD_EPOCH, None]),
        ("^5, 7/4, ^6, 7/1, ^5, 7/7", [None, Refusal.OUT_OF_ORDER, Refusal.OLD_EPOCH]),
        ("7/1, 7 resume, 7 resume, 7/4", [None, None, None, None]),
    ],
)
def test_late_repeated_and_superseded_messages_are_refused_and_said(text: str, refusals: list[Refusal | None]) -> None:
    merge = PartitionMerge()
    assert [push(merge, 2, message) for message in stream(2, text)] == refusals


def test_an_epoch_counts_for_its_own_sector_only() -> None:
    merge = PartitionMerge()
    push(merge, 0, sent(1, 0, "7 start", epoch=9))
    assert push(merge, 1, sent(1, 1, "7 start", epoch=3)) is None
    assert merge.epochs == [9, 3, -1, -1]


def test_the_offset_to_commit_is_that_of_the_oldest_message_that_waits() -> None:
    merge = PartitionMerge()
    assert merge.committable(0) is None
    for message in stream(0, "7 start, 7/1, 7/4"):  # offsets 3, 5, 7
        push(merge, 0, message)
    assert merge.committable(0) == 3
    for sector in (1, 2, 3):
        for message in stream(sector, "7 start, 7/1"):
            push(merge, sector, message)
    list(merge.pop())
    assert [merge.committable(s) for s in range(4)] == [7, 6, 6, 6]


def test_refused_and_unreadable_messages_are_passed_over_when_nothing_waits() -> None:
    merge = PartitionMerge()
    merge.skip(0, 40)
    assert merge.committable(0) == 41
    push(merge, 0, sent(50, 0, "7 resume"))
    assert merge.committable(0) == 51
    push(merge, 0, sent(60, 0, "7/1"))
    merge.skip(0, 70)
    assert merge.committable(0) == 60


def test_the_state_is_short_json_and_comes_back() -> None:
    merge = PartitionMerge((7, 4), (5, 6, -1, 2**40))
    assert json.loads(merge.state()) == {"position": [7, 4], "epochs": [5, 6, -1, 2**40]}
    restored = PartitionMerge.restored([merge.state()])
    assert (restored.position, restored.epochs) == ((7, 4), [5, 6, -1, 2**40])
    greatest = PartitionMerge((2**63 - 1, 2**63 - 1), (2**63 - 1,) * 4)
    assert len(greatest.state()) < 200


def test_of_the_states_beside_the_offsets_the_newest_counts() -> None:
    older, newest = PartitionMerge((7, 4), (5, 1, 0, 0)).state(), PartitionMerge((7, 9), (3, 2, 0, 0)).state()
    states = ["", newest, older, None]
    restored = PartitionMerge.restored(states)
    assert (restored.position, restored.epochs) == ((7, 9), [5, 2, 0, 0])
    fresh = PartitionMerge.restored([None, "", None, None])
    assert (fresh.position, fresh.epochs) == ((-1, -1), [-1] * 4)


def test_a_scan_that_may_not_be_joined_yet_waits_with_all_that_follows() -> None:
    merge = PartitionMerge()
    for sector in range(4):
        for message in stream(sector, "5 start, 5/1, 5 end, 9 start, 9/1, 9 end"):
            push(merge, sector, message)
    assert shown(merge.pop(lambda ordinal: ordinal < 9)) == ["5/1 0123", "5 end 0123"]
    assert merge.next_place() == (9, START)
    assert list(merge.pop(lambda ordinal: ordinal < 9)) == []
    assert shown(merge.pop()) == ["9/1 0123", "9 end 0123"]
    assert merge.next_place() is None
