"""
Host names of the SES API, by region.

A region belongs to a partition (the public cloud, China, GovCloud, ...), and the partition says under which domain its
hosts live. The table is our own because botocore declares its resolver private; the tests hold it equal to botocore's
rule set for every region. SES v1 and v2 share these hosts, and the signature's service name is ``ses`` in all of them.

Source: AWS General Reference, "Amazon SES endpoints and quotas"; botocore's ``endpoint-rule-set-1`` of sesv2.
"""

from __future__ import annotations

import re

import attrs

from .exceptions import SettingError

__all__ = ["check_region", "endpoint_host"]


@attrs.frozen
class _Partition:
    """Regions that share their domains, recognised by *regions*."""

    regions: re.Pattern[str]
    domain: str
    dual_stack_domain: str


def _partition(regions: str, domain: str, dual_stack_domain: str) -> _Partition:
    return _Partition(re.compile(regions), domain, dual_stack_domain)


# A region that none of the others claims is the public cloud's: that is how botocore takes names newer than itself.
_PUBLIC = _partition("", "amazonaws.com", "api.aws")
_PARTITIONS = (
    _partition(r"cn-\w+-\d+|aws-cn-global", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    _partition(r"us-gov-\w+-\d+|aws-us-gov-global", "amazonaws.com", "api.aws"),
    _partition(r"us-iso-\w+-\d+|aws-iso-global", "c2s.ic.gov", "api.aws.ic.gov"),
    _partition(r"us-isob-\w+-\d+|aws-iso-b-global", "sc2s.sgov.gov", "api.aws.scloud"),
    _partition(r"eu-isoe-\w+-\d+|aws-iso-e-global", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    _partition(r"us-isof-\w+-\d+|aws-iso-f-global", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    _partition(r"eusc-de-\w+-\d+", "amazonaws.eu", "api.amazonwebservices.eu"),
)

# One label of a host name (RFC 1123) that is not all digits: anything else could name somebody else's host.
_LABEL = re.compile(r"(?![0-9]+\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")


def check_region(region: str) -> str:
    """
    Give *region* back if it can be one label of a host name.

    Raises:
        SettingError: It cannot. Its text does not repeat the value, which may be anything.
    """
    if not _LABEL.match(region):
        raise SettingError(
            "The region must be letters, digits and hyphens, such as ap-southeast-1: it becomes a part of a host name."
        )
    return region


def endpoint_host(region: str, *, fips: bool = False, dual_stack: bool = False) -> str:
    """
    Say which host serves the SES API in *region*: ``email.ap-southeast-1.amazonaws.com``.

    Args:
        region: A region's name. One that is not known yet belongs to the partition its form says, else to the public.
        fips: The host with FIPS 140 validated cryptography.
        dual_stack: The host that answers on IPv6 too.

    Raises:
        SettingError: The name is no host label.

    Source: AWS General Reference, "Amazon SES endpoints and quotas".
    """
    check_region(region)
    partition = next((each for each in _PARTITIONS if each.regions.fullmatch(region)), _PUBLIC)
    domain = partition.dual_stack_domain if dual_stack else partition.domain
    return f"{'email-fips' if fips else 'email'}.{region}.{domain}"
