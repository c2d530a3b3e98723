"""The detector's and a scan's geometry. Axis order is (y, x) everywhere."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SECTORS = 4
SECTOR_ROWS = 144
FRAME_WIDTH = 576
FRAME_HEIGHT = SECTORS * SECTOR_ROWS
SECTOR_FRAME_BYTES = SECTOR_ROWS * FRAME_WIDTH * 2  # uint16

# Limits on what a message may claim. They keep a hostile header from allocating memory.
MAX_SCAN_EDGE = 65_535
MAX_FRAMES = 2**32 - 1  # the camera counts frames in 32 bits
MAX_FRAMES_PER_CHUNK = 1024
MAX_PARTITIONS = 1024


class ScanGeometry(BaseModel):
    """How the frames of a scan are numbered and cut into chunks; constant for the scan.

    Frame number = scan position · ``frames_per_position`` + k, scan position = y · ``width`` + x.
    Chunk c holds the frame numbers c · ``frames_per_chunk`` … and lies in partition c mod ``partitions``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Annotated[int, Field(ge=1, le=MAX_SCAN_EDGE)]
    height: Annotated[int, Field(ge=1, le=MAX_SCAN_EDGE)]
    frames_per_position: Annotated[int, Field(ge=1, le=MAX_SCAN_EDGE)] = 1
    frames_per_chunk: Annotated[int, Field(ge=1, le=MAX_FRAMES_PER_CHUNK)]
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)]

    @model_validator(mode="after")
    def _camera_can_count_the_frames(self) -> Self:
        if self.frames > MAX_FRAMES:
            raise ValueError(f"{self.frames} frames; the limit is {MAX_FRAMES}")
        return self

    @property
    def frames(self) -> int:
        """Number of frames of the complete scan."""
        return self.width * self.height * self.frames_per_position

    @property
    def chunks(self) -> int:
        """Number of chunks of the complete scan."""
        return -(-self.frames // self.frames_per_chunk)

    def partition_of(self, chunk_index: int) -> int:
        """Partition in which a chunk lies: chosen explicitly, never by a partitioner."""
        return chunk_index % self.partitions

    def frames_in_chunk(self, chunk_index: int) -> int:
        """Frames of a chunk: ``frames_per_chunk``, fewer in the last one."""
        return min(self.frames_per_chunk, self.frames - chunk_index * self.frames_per_chunk)

    def first_position(self, chunk_index: int) -> int:
        """Scan position of the first frame of a chunk (flat index, y · width + x)."""
        return chunk_index * self.frames_per_chunk // self.frames_per_position
