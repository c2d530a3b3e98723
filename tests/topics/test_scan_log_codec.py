"""Records of the scan log: what goes in comes out; what an account says of itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.golden.values import LEDGER, RECORDS
from tests.topics.strategies import records
from topics import scan_log
from topics.errors import DecodeError
from topics.marker import Ledger
from topics.scan_log import Account, LogRecord, SectorAccount


@settings(max_examples=100, deadline=None)
@given(record=records)
def test_a_decoded_record_is_what_was_encoded(record: LogRecord) -> None:
    assert scan_log.decode(record.encode()) == record


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_json_that_begins_with_its_id(name: str) -> None:
    fields = json.loads(RECORDS[name].encode())
    assert next(iter(fields)) == "schema_id"
    assert fields["schema_id"] == "log1"
    assert name.removeprefix("log1_").replace("_", " ").startswith(fields["kind"])


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "log1_count_finished"])
def test_a_usual_record_stays_below_a_kilobyte(name: str) -> None:
    assert len(RECORDS[name].encode()) < 1000


def test_a_message_without_bytes_is_refused() -> None:
    for empty in (None, b""):
        with pytest.raises(DecodeError):
            scan_log.decode(empty)


def account(*, incomplete: int = 0, written: int = 30, joined: int = 30, ledger: Ledger | None = LEDGER) -> Account:
    ledger = ledger and ledger.model_copy(update={"published": 30})
    sectors = [SectorAccount(ledger=ledger, joined=30)] * 3 + [SectorAccount(ledger=ledger, joined=joined)]
    return Account(
        frames_expected=30,
        frames_complete=30 - incomplete,
        frames_incomplete=incomplete,
        frames_written=written,
        electrons=0,
        raw_bytes=0,
        compressed_bytes=0,
        sectors=sectors,
    )


def test_an_account_with_everything_written_is_complete() -> None:
    assert account().balanced
    assert account().verdict == "complete"


@pytest.mark.parametrize(
    "found",
    [account(joined=29), account(joined=31), account(written=29), account(ledger=None)],
    ids=["a sector frame sent and not joined", "one joined and not sent", "a frame not written", "no end of a sector"],
)
def test_an_account_that_does_not_balance_is_incomplete(found: Account) -> None:
    assert not found.balanced
    assert found.verdict == "incomplete"


def test_an_account_with_an_incomplete_frame_is_incomplete_though_it_balances() -> None:
    found = account(incomplete=1, written=29)
    assert found.balanced
    assert found.verdict == "incomplete"
