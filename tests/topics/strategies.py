"""Hypothesis strategies for every message."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from topics.calibration import MAX_BINS, Calibration
from topics.chunk import NO_FLOOR, ChunkHeader
from topics.dead_letter import Origin
from topics.event import CountEnd, EventHeader, Events
from topics.geometry import FRAME_HEIGHT, FRAME_WIDTH, MAX_FRAMES, ScanGeometry
from topics.marker import EndMarker, EndReason, Ledger, Marker, PartitionPublished, ResumeMarker, StartMarker
from topics.scan_log import (
    Account,
    AutoThreshold,
    CloseRequested,
    CountAbandoned,
    CountFinished,
    CountSettings,
    CountStarted,
    LogRecord,
    ReceiverStarted,
    ReferenceStored,
    ScanAnnotated,
    ScanStarted,
    SectorAccount,
    SectorEnded,
    SessionEnded,
    SessionStarted,
    ThresholdsFound,
    ZeroSuppression,
)

sectors = st.integers(0, 3)
offsets = st.integers(0, 2**63 - 1)
counts = st.integers(0, 20) | st.integers(0, 2**63 - 1)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True)
texts = st.text(max_size=60)
edges = st.integers(1, 20) | st.integers(1, 65_535)

geometries = (
    st.tuples(edges, edges, st.integers(1, 5) | st.integers(1, 65_535))
    .filter(lambda size: size[0] * size[1] * size[2] <= MAX_FRAMES)
    .flatmap(
        lambda size: st.builds(
            ScanGeometry,
            width=st.just(size[0]),
            height=st.just(size[1]),
            frames_per_position=st.just(size[2]),
            frames_per_chunk=st.integers(1, 40) | st.integers(1, 1024),
            partitions=st.integers(1, 8) | st.integers(1, 1024),
        )
    )
)
ledgers = st.builds(Ledger, **dict.fromkeys(Ledger.model_fields, counts))
published = st.builds(
    PartitionPublished,
    chunks=counts,
    sector_frames=counts,
    payload_bytes=counts,
    last_chunk=st.integers(-1, 2**32 - 1),
    start_offset=st.integers(-1, 2**63 - 1),
)


@st.composite
def chunk_headers(draw: st.DrawFn) -> ChunkHeader:
    geometry = draw(geometries)
    index = draw(st.integers(0, geometry.chunks - 1) | st.just(geometry.chunks - 1))
    frames = geometry.frames_in_chunk(index)
    present = np.random.default_rng(draw(st.integers(0, 99))).random(frames) < draw(st.sampled_from([0.1, 0.9, 1]))
    present[draw(st.integers(0, frames - 1))] = True  # a chunk without frames is not sent
    return ChunkHeader(
        sector=draw(sectors),
        ordinal=draw(offsets),
        epoch=draw(offsets),
        geometry=geometry,
        chunk_index=index,
        present=present,
        published=draw(published).model_copy(update={"last_chunk": index}),
        first_frame_ns=draw(counts),
        floor=draw(st.just(NO_FLOOR) | st.floats(0, 65_535)),
    )


_marker_fields = {
    "sector": sectors,
    "ordinal": offsets,
    "epoch": offsets,
    "partition": counts,
    "geometry": geometries,
    "published": published,
}
end_markers = st.builds(EndMarker, **_marker_fields, reason=st.sampled_from(EndReason), ledger=ledgers)
markers: st.SearchStrategy[Marker] = st.one_of(
    st.builds(StartMarker, **_marker_fields), st.builds(ResumeMarker, **_marker_fields), end_markers
)


@st.composite
def events(draw: st.DrawFn) -> Events:
    geometry = draw(geometries)
    index = draw(st.integers(0, geometry.chunks - 1) | st.just(geometry.chunks - 1))
    frames = geometry.frames_in_chunk(index)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    electrons = random.integers(0, draw(st.sampled_from([1, 2, 9])), frames)  # in each frame
    rows = [np.sort(random.choice(FRAME_HEIGHT * FRAME_WIDTH, n, replace=False, shuffle=False)) for n in electrons]
    header = EventHeader(
        ordinal=draw(offsets),
        count=draw(offsets),
        count_name=draw(names),
        geometry=geometry,
        chunk_index=index,
        payload_bytes=draw(st.lists(st.none() | counts, min_size=4, max_size=4)),
        epochs=draw(st.lists(st.none() | offsets, min_size=4, max_size=4)),
    )
    return Events(
        header,
        indices=np.concatenate(rows).astype(np.uint32),
        offsets=np.concatenate(([0], np.cumsum(electrons))),
        missing_sectors=random.integers(0, 16, frames).astype(np.uint8),
    )


count_ends = st.builds(
    CountEnd,
    ordinal=offsets,
    count=offsets,
    count_name=names,
    geometry=geometries,
    partition=counts,
    ends=st.lists(st.none() | end_markers, min_size=4, max_size=4),
)

_numbers = st.floats(allow_nan=False, allow_infinity=False)
calibrations = st.builds(
    Calibration,
    ordinal=offsets,
    count=offsets,
    frames=counts,
    first_bin=st.integers(-(2**31), 2**31 - 1),
    histogram=st.lists(counts, max_size=50) | st.integers(0, MAX_BINS).map(lambda bins: [7] * bins),
    **dict.fromkeys(("amplitude", "optimized_mean", "optimized_std", "background", "xray"), _numbers),
)


@st.composite
def references(draw: st.DrawFn) -> NDArray[np.float32]:
    """Finite pixels of any bit pattern."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pixels = random.integers(0, 2**32, (FRAME_HEIGHT, FRAME_WIDTH), np.uint32).view(np.float32)
    return np.nan_to_num(pixels, copy=False, nan=0.1, posinf=-0.0, neginf=1e-45)


_lists_of_sectors = st.lists(sectors, min_size=1, max_size=4)
_thresholds = st.floats(allow_nan=False, allow_infinity=False)
_hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
_positive = st.floats(min_value=0, exclude_min=True, max_value=1e6)
_how_to_count = {
    "engine": st.sampled_from(["fast", "stempy"]),
    "dark": st.none() | _hashes,
    "gain": st.none() | _hashes,
}
_settings = st.one_of(
    st.builds(CountSettings, background=_thresholds, xray=_thresholds, **_how_to_count),
    st.builds(
        CountSettings,
        background=_thresholds,
        xray=_thresholds,
        row_dark=st.sampled_from(["mean", "median"]),
        optimized_mean=_positive,
        **_how_to_count,
    ),
    st.builds(
        CountSettings,
        auto_threshold=st.builds(
            AutoThreshold,
            samples=st.integers(1, 1_200_000),
            blocks=st.integers(1, 20_000),
            background_sigmas=_positive,
            xray_sigmas=_positive,
        ),
        row_dark=st.sampled_from([None, "mean", "median"]),
        **_how_to_count,
    ),
)
_accounts = st.builds(
    Account,
    **dict.fromkeys(set(Account.model_fields) - {"sectors"}, counts),
    sectors=st.lists(
        st.builds(
            SectorAccount, ledger=st.none() | ledgers, reason=st.none() | st.sampled_from(EndReason), joined=counts
        ),
        min_size=4,
        max_size=4,
    ),
)
records: st.SearchStrategy[LogRecord] = st.one_of(
    st.builds(ReceiverStarted, sectors=_lists_of_sectors, host=texts, pid=counts, version=texts),
    st.builds(
        ScanStarted,
        session=names,
        number=counts,
        geometry=geometries,
        sectors=_lists_of_sectors,
        epoch=offsets,
        feed=texts,
        zero_suppression=st.none()
        | st.builds(
            ZeroSuppression,
            floor=st.none() | st.floats(0, 65_535),
            dark=st.none() | _hashes,
            gain=st.none() | _hashes,
        ),
    ),
    st.builds(
        SectorEnded,
        ordinal=offsets,
        sector=sectors,
        epoch=offsets,
        reason=st.sampled_from(EndReason),
        ledger=ledgers,
        first_offsets=st.lists(offsets, max_size=3),
        last_offsets=st.lists(offsets, max_size=3),
    ),
    st.builds(CountStarted, ordinal=offsets, name=names, settings=_settings, version=texts),
    st.builds(ReferenceStored, sha256=_hashes, offset=offsets),
    st.builds(
        ThresholdsFound,
        ordinal=offsets,
        count=offsets,
        source=st.sampled_from(["calibration", "session"]),
        **dict.fromkeys(("background", "xray", "mean", "std", "optimized_mean", "optimized_std"), _thresholds),
        frames=counts,
        calibration=offsets,
        why=texts,
    ),
    st.builds(
        CountFinished,
        ordinal=offsets,
        count=offsets,
        name=names,
        output=texts,
        finished_ns=counts,
        account=_accounts,
    ),
    st.builds(CountAbandoned, ordinal=offsets, count=st.none() | offsets, name=names, why=texts),
    st.builds(SessionStarted, name=names),
    st.builds(SessionEnded, name=names),
    st.builds(ScanAnnotated, ordinal=offsets, fields=st.dictionaries(names, texts, min_size=1, max_size=32)),
    st.builds(CloseRequested, ordinal=offsets),
)
origins = st.builds(
    Origin,
    topic=st.text(max_size=60),
    partition=counts,
    offset=offsets,
    service=texts,
    reason=st.text(max_size=200),
    size=counts,
)
