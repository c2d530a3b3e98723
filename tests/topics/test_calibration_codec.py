"""The calibration: the histogram that automatic thresholds were found from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tests.golden.values import CALIBRATIONS
from tests.topics.strategies import calibrations
from topics import calibration
from topics.calibration import MAX_BINS, MAX_CALIBRATION_BYTES, Calibration
from topics.errors import DecodeError
from topics.registry import topic

FIT = CALIBRATIONS["cal1_fit"]


@settings(max_examples=50, deadline=None)
@given(found=calibrations)
def test_a_decoded_calibration_is_what_was_encoded(found: Calibration) -> None:
    assert calibration.decode(found.encode()) == found


def test_the_id_is_the_first_field() -> None:
    assert next(iter(json.loads(FIT.encode()))) == "schema_id"
    assert FIT.encode().startswith(b'{"schema_id":"cal1",')


def test_the_largest_calibration_is_within_the_limit_and_fits_into_its_topic() -> None:
    largest = FIT.model_copy(update={"histogram": [2**63 - 1] * MAX_BINS, "ordinal": 2**63 - 1, "count": 2**63 - 1})
    assert calibration.decode(largest.encode()) == largest
    assert len(largest.encode()) < MAX_CALIBRATION_BYTES < topic("references").max_message_bytes


def test_a_longer_message_is_refused_whatever_it_says() -> None:
    message = FIT.encode() + b" " * MAX_CALIBRATION_BYTES
    with pytest.raises(DecodeError, match=f"calibration of {len(message)} bytes; the limit is {MAX_CALIBRATION_BYTES}"):
        calibration.decode(message)


def test_a_histogram_of_more_bins_than_differences_of_uint16_is_refused() -> None:
    with pytest.raises(ValidationError):
        Calibration(**(FIT.model_dump() | {"histogram": [0] * (MAX_BINS + 1)}))


def test_no_message_is_no_calibration() -> None:
    with pytest.raises(DecodeError):
        calibration.decode(None)
