from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from tanksend._smtp_password import is_temporary
from tanksend.exceptions import SettingError
from tanksend.transports import smtp_password

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("region", "password"),
    [
        ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
        ("us-west-2", "BF2PynzbSCAjX08zhZZnP/kW+T9P5zs/1Er0pi5vTEmd"),
        ("ap-southeast-1", "BPFxvU6FSotUttFTKPPijavrWlByiD8MvThjbo1MuvNt"),
        ("eu-west-1", "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"),
    ],
)
def test_the_password_is_the_one_aws_makes(region, password):
    """AWS's example secret, in four regions."""
    assert password == smtp_password(SECRET, region)


@given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_password_has_its_version_and_a_whole_hash(secret):
    """Whatever the secret: one byte of version, 32 of the hash, as base64 without line ends."""
    raw = base64.b64decode(smtp_password(secret, "us-east-1"), validate=True)
    assert (33, b"\x04") == (len(raw), raw[:1])


@pytest.mark.parametrize("region", ["", "us east 1", "us-east-1.evil.com", "1"])
def test_what_is_no_region_is_refused(region):
    """Instead of a password that no endpoint takes."""
    with pytest.raises(SettingError):
        smtp_password(SECRET, region)


@pytest.mark.parametrize(
    ("access_key", "token", "expected"),
    [("AKIDEXAMPLE", None, False), ("AKIDEXAMPLE", "token", True), ("ASIAEXAMPLE", None, True)],
)
def test_temporary_keys_are_known_by_their_name_or_token(access_key, token, expected):
    """Each of the two gives a session away."""
    assert is_temporary(access_key, token) is expected
