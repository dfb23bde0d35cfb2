from __future__ import annotations

import itertools
import json

import botocore
import botocore.loaders
import pytest
from botocore.endpoint_provider import EndpointProvider
from hypothesis import given, strategies as st

from tanksend._endpoints import check_region, endpoint_host
from tanksend.exceptions import SettingError

LOADER = botocore.loaders.Loader()
PARTITIONS = LOADER.load_data("partitions")
RULES = EndpointProvider(LOADER.load_service_model("sesv2", "endpoint-rule-set-1"), PARTITIONS)
KNOWN = sorted({region for partition in PARTITIONS["partitions"] for region in partition["regions"]})
NOT_KNOWN = (
    "ap-future-9 cn-future-1 us-gov-moon-1 us-iso-moon-1 us-isob-moon-1 eu-isoe-moon-2 us-isof-moon-1 "
    "eusc-de-moon-1 eusc-fr-west-1 nowhere xx-west-1 us-west-1a US-EAST-1 local"
).split()
VARIANTS = list(itertools.product([False, True], repeat=2))
IS_OLD = tuple(int(part) for part in botocore.__version__.split(".")[:2]) < (1, 40)


def botocores(region, fips, dual_stack):
    """Ask botocore's rule set."""
    found = RULES.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack)
    return found.url.removeprefix("https://")


@pytest.mark.skipif(IS_OLD, reason="older rule sets know fewer partitions, and no dual-stack in some")
@pytest.mark.parametrize(("fips", "dual_stack"), VARIANTS)
@pytest.mark.parametrize("region", KNOWN + NOT_KNOWN)
def test_hosts_are_those_of_botocores_rule_set(region, fips, dual_stack):
    """Every region that botocore knows, and names it does not, with and without FIPS and dual-stack."""
    assert endpoint_host(region, fips=fips, dual_stack=dual_stack) == botocores(region, fips, dual_stack)


@pytest.mark.skipif(IS_OLD, reason="older rule sets know fewer partitions, and no dual-stack in some")
@given(
    region=st.from_regex(
        r"(us|eu|ap|cn|us-gov|us-iso|us-isob|eusc-de|eu-isoe|us-isof|zz)-[a-z]{1,6}-[0-9]", fullmatch=True
    ),
    variant=st.sampled_from(VARIANTS),
)
def test_invented_regions_get_botocores_partition(region, variant):
    """A region newer than the table belongs where its name says, as in botocore."""
    assert endpoint_host(region, fips=variant[0], dual_stack=variant[1]) == botocores(region, *variant)


def test_the_table_covers_every_partition_of_botocore():
    """A partition that botocore has and we have not would send China's or GovCloud's mail to the public cloud."""
    suffixes = {partition["outputs"]["dnsSuffix"] for partition in PARTITIONS["partitions"]}
    regions = [next(iter(partition["regions"])) for partition in PARTITIONS["partitions"]]
    assert {endpoint_host(region).partition(f".{region}.")[2] for region in regions} == suffixes


def test_the_host_the_issue_names():
    """One host written out, so that a wrong rule set would show."""
    assert endpoint_host("ap-southeast-1") == "email.ap-southeast-1.amazonaws.com"
    assert endpoint_host("us-gov-west-1", fips=True) == "email-fips.us-gov-west-1.amazonaws.com"
    assert endpoint_host("cn-north-1", dual_stack=True) == "email.cn-north-1.api.amazonwebservices.com.cn"


@pytest.mark.parametrize(
    "region",
    [
        "",
        "evil.example/",
        "evil.example#",
        "us-east-1.evil",
        "us east-1",
        "us-east-1\n",
        "-us",
        "us-",
        "1234",
        "é-west-1",
        "a@b",
        "us_east_1",
        "x" * 64,
        "us-east-1\r\nHost: evil",
        "us-east-1:8080",
        "ａｐ-south-1",
    ],
)
def test_a_region_cannot_name_another_host(region):
    """Whatever is not one plain label is refused, and the text does not repeat it."""
    with pytest.raises(SettingError, match="letters, digits and hyphens") as caught:
        endpoint_host(region)
    assert not region or region not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_one_label_or_refused(text):
    """The host has the label and nothing more of the text in it."""
    try:
        region = check_region(text)
    except SettingError:
        return
    assert endpoint_host(region).split(".")[:2] == ["email", text]
    assert text.isascii()
    assert json.dumps(text) == f'"{text}"'
