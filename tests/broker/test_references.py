"""References and calibrations in the topic of a real broker."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest

from service.errors import FaultError
from service.references import fetch_calibration, fetch_reference, store_calibration, store_reference
from service.scan_log import ScanLog
from service.topic_admin import create_topics
from tests.broker.messages import end_offsets, read_topic, scan_log, values, write_message
from tests.golden.values import CALIBRATIONS
from topics import reference

DARK = np.random.default_rng(1).normal(20, 3, (576, 576)).astype(np.float32)
SHA256 = hashlib.sha256(DARK.tobytes()).hexdigest()
CALIBRATION = CALIBRATIONS["cal1_fit"]


@pytest.fixture(scope="module")
def offset(bootstrap: str) -> int:
    """Where the dark reference lies, which was stored twice, by two clients."""
    create_topics(bootstrap)
    for _ in range(2):
        with ScanLog(bootstrap) as log:
            assert store_reference(log, DARK) == SHA256
            assert store_reference(log, DARK) == SHA256
    with ScanLog(bootstrap) as log:
        return log.catch_up().references[SHA256]


def test_a_reference_that_is_stored_again_lies_there_once(bootstrap: str, offset: int) -> None:
    (message,) = [message for message in read_topic(bootstrap, "references") if message.key() == SHA256.encode()]
    assert message.offset() == offset
    np.testing.assert_array_equal(np.load(io.BytesIO(values([message])[0][4:])), DARK)
    stored = [record for record in scan_log(bootstrap) if record.get("sha256") == SHA256]
    assert stored == [{"schema_id": "log1", "kind": "reference stored", "sha256": SHA256, "offset": offset}]


def test_another_client_fetches_it_with_messages_before_and_behind_it(bootstrap: str, offset: int) -> None:
    with ScanLog(bootstrap) as log:
        store_reference(log, DARK + 1)
    np.testing.assert_array_equal(fetch_reference(bootstrap, SHA256, offset), DARK)


def test_a_reference_with_another_hash_is_a_fault(bootstrap: str, offset: int) -> None:
    other = "0" * 64
    with pytest.raises(
        FaultError, match=rf"references\[0\] offset {offset}: expected reference {other}, found {SHA256}"
    ):
        fetch_reference(bootstrap, other, offset)


def test_a_damaged_reference_is_a_fault(bootstrap: str, offset: int) -> None:
    assert offset >= 0
    damaged = end_offsets(bootstrap, "references")[0]
    write_message(bootstrap, "references", 0, reference.encode(DARK)[:-4])
    with pytest.raises(FaultError, match=rf"offset {damaged}: reference {SHA256} is damaged: .* 1327232 bytes"):
        fetch_reference(bootstrap, SHA256, damaged)


@pytest.mark.parametrize("beyond", [0, 1000])
def test_a_reference_that_is_not_there_is_a_fault(bootstrap: str, offset: int, beyond: int) -> None:
    assert offset >= 0
    end = end_offsets(bootstrap, "references")[0]
    with pytest.raises(FaultError, match=rf"offset {end + beyond}: no message; there are offsets 0 to {end - 1}"):
        fetch_reference(bootstrap, SHA256, end + beyond)


def test_a_calibration_is_fetched_from_the_offset_at_which_it_was_stored(bootstrap: str, offset: int) -> None:
    stored = store_calibration(bootstrap, CALIBRATION)
    assert fetch_calibration(bootstrap, stored) == CALIBRATION
    (message,) = read_topic(bootstrap, "references", [stored], [stored])
    assert message.key() == b"calibration/17/22"
    with pytest.raises(FaultError, match=rf"offset {offset}: calibration is damaged: no calibration"):
        fetch_calibration(bootstrap, offset)


def test_the_largest_calibration_passes_the_broker(bootstrap: str, offset: int) -> None:
    assert offset >= 0
    largest = CALIBRATION.model_copy(update={"histogram": [2**63 - 1] * 131_072})
    assert fetch_calibration(bootstrap, store_calibration(bootstrap, largest)) == largest
