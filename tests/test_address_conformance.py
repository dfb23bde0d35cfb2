from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tanksend._addresses import Address
from tanksend._validator import AddressValidator
from tanksend.exceptions import InvalidAddressError

TABLE = Path(__file__).resolve().parent.parent.parent / "shared" / "fixtures" / "addresses.csv"
pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(
        not TABLE.is_file(), reason="the reference addresses (../shared/fixtures/addresses.csv) are not here"
    ),
]


def rows():
    """Address, verdict and reason of each row."""
    if not TABLE.is_file():
        return []
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [(_decoded(row["address"]), row["verdict"], row["reason"]) for row in csv.DictReader(file)]


def _decoded(cell):
    return json.loads(cell.removeprefix("json:")) if cell.startswith("json:") else cell


def verdict(text):
    """Ours, in the words of the table."""
    try:
        AddressValidator().validate(text)
    except InvalidAddressError:
        return "invalid"
    return "valid"


@pytest.mark.parametrize(("address", "expected", "reason"), rows())
def test_verdicts_are_those_of_the_reference(address, expected, reason):
    """Each bare address is accepted or refused as the reference table says."""
    assert expected == verdict(address), reason


@pytest.mark.parametrize(("address", "expected", "reason"), rows())
def test_splitting_loses_nothing_of_a_good_address(address, expected, reason):
    """What is valid bare is valid after splitting, and means the same mailbox."""
    if expected == "valid":
        assert Address("", address) == Address.parse(address), reason
        assert "valid" == verdict(Address.parse(address)), reason
