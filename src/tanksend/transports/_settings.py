"""
Where the requests go: region, endpoint, trusted certificates and proxy, as botocore would read them.

Each setting has the same order as in the AWS SDK for Python: the argument, the environment, the profile in the AWS
files. botocore parses the files, and only when they can matter: a file that names none of the settings still open
cannot change them, so the usual server with its environment never loads botocore.

One addition: ``AWS_REGION``, which the other AWS SDKs read and botocore does not, is taken where botocore would find no
region. One refusal: an endpoint without TLS must be on this machine, because requests carry addresses and a signature.

Source: AWS SDKs and Tools Reference Guide, "Settings reference"; botocore's ``configprovider``, ``args`` and ``utils``.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from .._endpoints import check_region, endpoint_host
from .._sigv4 import Signer
from ..exceptions import SettingError
from ._aws_session import AwsSession, open_session, refuse_both, shown_profile, unwrap_session
from ._threads import in_thread

__all__ = ["Endpoint", "Proxy", "Settings", "load_settings", "resolve_settings"]

_SERVICE: Final = "sesv2"
_PORTS: Final = {"https": 443, "http": 80}
_SERVICE_URL: Final = "AWS_ENDPOINT_URL_SESV2"
_GLOBAL_URL: Final = "AWS_ENDPOINT_URL"

# botocore's name of a setting, which is also its name in the config file, to the environment variable before it.
_VARIABLES: Final = {
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
    "use_fips_endpoint": "AWS_USE_FIPS_ENDPOINT",
    "use_dualstack_endpoint": "AWS_USE_DUALSTACK_ENDPOINT",
    "ignore_configured_endpoint_urls": "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
}
# The AWS files, and the variables that move them. Of a profile, the credentials file may hold settings too.
_FILES: Final = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}

_HOST = re.compile(r"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.?\Z")
_BASE_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~%-]+)*\Z")
_UNSAFE = re.compile(r"[^\x21-\x7e]")

_NO_REGION: Final = (
    "No AWS region is set. Give region=..., or set AWS_DEFAULT_REGION, "
    "or write region = ... into the profile in ~/.aws/config."
)


@attrs.frozen
class Endpoint:
    """
    Where to connect.

    Args:
        scheme: ``https``, or ``http`` on loopback.
        host: A name or address, in lower case, without brackets.
        port: TCP port.
        base_path: What goes before every path, without a slash at its end; empty for AWS's own hosts.
    """

    scheme: str
    host: str
    port: int
    base_path: str = ""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def host_header(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@attrs.frozen
class Proxy:
    """
    An HTTP proxy to reach the endpoint through, with CONNECT.

    Args:
        scheme: ``http``, or ``https`` for TLS to the proxy itself.
        host: A name or address, in lower case, without brackets.
        port: TCP port.
        authorization: The Proxy-Authorization header's value, if the proxy wants one. Not in the ``repr``.
        ca_bundle: Certificates to trust for TLS to the proxy; ``None`` for the same as the endpoint's.
    """

    scheme: str
    host: str
    port: int
    authorization: str | None = attrs.field(default=None, repr=False)
    ca_bundle: str | None = None


@attrs.frozen
class Settings:
    """
    Everything about the way to SES except the credentials.

    Args:
        region: Which region's SES, and the region in signatures.
        region_source: Where that came from, in words for an error's text: ``the AWS_DEFAULT_REGION variable``.
        endpoint: Where to connect.
        endpoint_source: Where that came from; ``the region`` for AWS's own host.
        ca_bundle: A file or directory of certificates to trust instead of the system's store.
        proxy: Go through this one.
    """

    region: str
    region_source: str
    endpoint: Endpoint
    endpoint_source: str = "the region"
    ca_bundle: str | None = None
    proxy: Proxy | None = None

    def signer(self, user_agent: str) -> Signer:
        """Make the signer for this region and endpoint."""
        endpoint = self.endpoint
        return Signer(self.region, endpoint.host_header, base_path=endpoint.base_path, user_agent=user_agent)


@attrs.frozen
class _Source:
    """
    Where settings are read: the environment alone, or a botocore session that knows the environment and the files.

    Args:
        variable: Look up one of `_VARIABLES`.
        session: The session, if there is one.
    """

    variable: Callable[[str], Any]
    session: AwsSession | None = None

    def client_config(self, name: str) -> Any:  # noqa: ANN401 - botocore ships no types.
        """Look up an option of the session's default client config, which goes before the environment."""
        config = self.session.get_default_client_config() if self.session is not None else None
        return getattr(config, name, None)

    def flag(self, name: str) -> bool:
        """Look up a yes or no. As botocore has it, everything but "true" is no."""
        value = self.client_config(name)
        if value is None:
            value = self.variable(name)
        return str(value).lower() == "true"


def load_settings(
    *,
    region: str | None = None,
    profile: str | None = None,
    session: object | None = None,
    endpoint_url: str | None = None,
) -> Settings:
    """
    Read the settings now. May load botocore and read files: see `resolve_settings` for use in an event loop.

    Args:
        region: Overrides every other source of the region.
        profile: Which profile of the AWS files.
        session: A botocore or boto3 session to ask instead of one of our own.
        endpoint_url: Overrides every other source of the endpoint.

    Raises:
        SettingError: There is no region, or a setting cannot be used; its text names the setting.
        TypeError: *session* is none.
    """
    refuse_both(profile, session)
    source = _source(region, profile, session, endpoint_url)
    region, region_source, fips_region = _region(region, source)
    endpoint, endpoint_source = _configured_endpoint(endpoint_url, source)
    if endpoint is None:
        fips = fips_region or source.flag("use_fips_endpoint")
        host = endpoint_host(region, fips=fips, dual_stack=source.flag("use_dualstack_endpoint"))
        endpoint, endpoint_source = Endpoint("https", host.lower(), 443), "the region"
    return Settings(
        region=region,
        region_source=region_source,
        endpoint=endpoint,
        endpoint_source=endpoint_source,
        ca_bundle=_ca_bundle(source),
        proxy=_proxy(endpoint, source),
    )


async def resolve_settings(
    *,
    region: str | None = None,
    profile: str | None = None,
    session: object | None = None,
    endpoint_url: str | None = None,
) -> Settings:
    """Do as `load_settings`, in a worker thread where botocore or its files have a say."""
    load = functools.partial(load_settings, region=region, profile=profile, session=session, endpoint_url=endpoint_url)
    if session is None and not _files_matter(region, profile, endpoint_url):
        return load()
    return await in_thread(load)


def _source(region: str | None, profile: str | None, session: object | None, endpoint_url: str | None) -> _Source:
    if session is not None:
        return _session_source(unwrap_session(session))
    if _files_matter(region, profile, endpoint_url):
        return _session_source(open_session(profile))
    return _Source(lambda name: os.environ.get(_VARIABLES[name]))


def _session_source(session: AwsSession) -> _Source:
    """Have the session read its files now: they stay read, so that nothing after this meets their errors."""
    try:
        session.get_scoped_config()
    except Exception as error:  # noqa: BLE001 - its parse errors have no useful class in common, and quote lines.
        raise _file_error(error, session.get_config_variable("profile")) from None
    return _Source(session.get_config_variable, session)


def _file_error(error: Exception, profile: str | None) -> SettingError:
    if type(error).__name__ == "ProfileNotFound":
        return SettingError(
            f"There is no profile {shown_profile(profile or '')} in the AWS config and credentials files; "
            f"it is named by profile=..., the session or AWS_PROFILE."
        )
    return SettingError(f"The AWS config or credentials file cannot be read ({type(error).__name__}).")


def _profile_in_environment() -> str | None:
    return os.environ.get("AWS_DEFAULT_PROFILE", os.environ.get("AWS_PROFILE"))


def _files_matter(region: str | None, profile: str | None, endpoint_url: str | None) -> bool:
    """Whether the AWS files may say something that the arguments and the environment leave open."""
    if profile is not None or _profile_in_environment() is not None:
        return True
    open_settings = {name for name, variable in _VARIABLES.items() if variable not in os.environ}
    if region is not None:
        open_settings.discard("region")
    if endpoint_url is None:
        open_settings |= {"endpoint_url", "services"}
    return any(_mentions(variable, default, open_settings) for variable, default in _FILES.items())


def _mentions(variable: str, default: str, names: set[str]) -> bool:
    # Expanded as botocore does it. Names of settings are not case-sensitive in these files.
    path = Path(os.path.expandvars(os.environ.get(variable, default))).expanduser()
    try:
        text = path.read_text(encoding="utf-8").lower()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return any(name in text for name in names)


def _region(argument: str | None, source: _Source) -> tuple[str, str, bool]:
    """Find the region, where it came from, and whether its name asked for the FIPS host."""
    region, said_by = _find_region(argument, source)
    try:
        check_region(region)
    except SettingError as error:
        raise SettingError(f"{error} It came from {said_by}.") from None
    # Pseudo regions of old SDKs, as botocore takes them: fips-us-gov-west-1 is us-gov-west-1 through its FIPS host.
    plain = region.replace("fips-", "").replace("-fips", "")
    return plain, said_by, plain != region


def _find_region(argument: str | None, source: _Source) -> tuple[str, str]:
    if argument is not None:
        return argument, "the region argument"
    if region := source.client_config("region_name"):
        return region, "the session's client config"
    if region := source.variable("region"):
        return region, _region_source(source)
    if region := os.environ.get("AWS_REGION"):
        return region, "the AWS_REGION variable"
    raise SettingError(_NO_REGION)


def _region_source(source: _Source) -> str:
    session = source.session
    if session is not None and session.instance_variables().get("region"):
        return "the session"
    if os.environ.get("AWS_DEFAULT_REGION") or session is None:
        return "the AWS_DEFAULT_REGION variable"
    return f"the profile {shown_profile(session.get_config_variable('profile') or 'default')}"


def _configured_endpoint(argument: str | None, source: _Source) -> tuple[Endpoint | None, str]:
    url, said_by = (argument, "the endpoint_url argument") if argument is not None else _configured_url(source)
    return (None if url is None else _parse_endpoint(url, said_by)), said_by


def _configured_url(source: _Source) -> tuple[str | None, str]:
    if source.flag("ignore_configured_endpoint_urls"):
        return None, ""
    for variable in (_SERVICE_URL, _GLOBAL_URL):
        if url := os.environ.get(variable):
            return url, f"the {variable} variable"
    if source.session is None:
        return None, ""
    profile = source.session.get_scoped_config()
    if url := _services_section(source.session, profile).get("endpoint_url"):
        return url, "the services section of the AWS config file"
    return profile.get("endpoint_url") or None, "endpoint_url of the profile"


def _services_section(session: AwsSession, profile: Mapping[str, Any]) -> Mapping[str, Any]:
    name = profile.get("services")
    if name is None:
        return {}
    section = session.full_config.get("services", {}).get(name)
    if not section:
        raise SettingError("The profile names a services section that the AWS config file does not have.")
    found = section.get(_SERVICE, {})
    return found if isinstance(found, Mapping) else {}


def _parse_endpoint(url: str, said_by: str) -> Endpoint:
    parts = _split(url, said_by)
    base_path = parts.path.rstrip("/")
    if parts.username is not None or parts.query or parts.fragment or not _BASE_PATH.match(base_path):
        raise SettingError(f"The endpoint from {said_by} may have a host, a port and a plain path, and nothing else.")
    host, port = _host_and_port(parts, said_by)
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingError(
            f"The endpoint from {said_by} has no TLS (http://), which is only possible on this machine itself "
            f"(127.0.0.1, localhost, [::1]): use https://."
        )
    return Endpoint(parts.scheme, host, port, base_path)


def _split(url: str, said_by: str) -> SplitResult:
    # The value is not repeated: it may hold a password. urlsplit drops line ends unasked, hence the first test.
    try:
        parts = urlsplit("" if _UNSAFE.search(url) else url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise SettingError(f"The URL from {said_by} must begin with https:// (or http://) and name a host.")
    return parts


def _host_and_port(parts: SplitResult, said_by: str) -> tuple[str, int]:
    host = parts.hostname or ""
    try:
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError:
        raise SettingError(f"The URL from {said_by} has a bad port or address.") from None
    if port == 0 or "%" in host or (":" not in host and not _HOST.match(host)):
        raise SettingError(f"The URL from {said_by} has a bad port or host name.")
    return host, port


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _ca_bundle(source: _Source) -> str | None:
    """Find the certificates to trust. Empty is unset: botocore's older releases turned verification off at that."""
    bundle, said_by = source.variable("ca_bundle"), "AWS_CA_BUNDLE or ca_bundle of the profile"
    if not bundle:
        bundle, said_by = os.environ.get("REQUESTS_CA_BUNDLE"), "REQUESTS_CA_BUNDLE"
    return _existing(bundle, said_by) if bundle else None


def _existing(path: str, said_by: str) -> str:
    if not Path(path).exists():
        raise SettingError(f"The certificate bundle that {said_by} names does not exist.")
    return path


def _proxy(endpoint: Endpoint, source: _Source) -> Proxy | None:
    proxies = source.client_config("proxies")
    said_by = f"the session's client config (proxies[{endpoint.scheme!r}])"
    if proxies is None:
        proxies = _proxies_in_environment(endpoint)
        said_by = f"the {endpoint.scheme.upper()}_PROXY variable"
    url = proxies.get(endpoint.scheme)
    if not url:
        return None
    proxy = _parse_proxy(url, said_by, source)
    # Without TLS nothing may leave this machine, so neither does it through another machine's proxy.
    return proxy if endpoint.tls or _is_loopback(proxy.host) else None


def _proxies_in_environment(endpoint: Endpoint) -> Mapping[str, str]:
    """Ask the standard library, as botocore does: it knows NO_PROXY, both cases, and the system's own settings."""
    in_system = sys.platform in {"darwin", "win32"}
    if not in_system and not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}  # Spares the import, some 30 ms.
    import urllib.request

    try:
        bypassed = urllib.request.proxy_bypass(endpoint.host_header)
    except (TypeError, OSError):  # pragma: no cover - the system's settings may need a name lookup.
        bypassed = False
    return {} if bypassed else urllib.request.getproxies()


def _parse_proxy(url: str, said_by: str, source: _Source) -> Proxy:
    parts = _split(_with_scheme(url), said_by)
    host, port = _host_and_port(parts, said_by)
    options = source.client_config("proxies_config") or {}
    if options.get("proxy_client_cert"):
        raise SettingError("proxy_client_cert (the session's client config) is not supported.")
    bundle = options.get("proxy_ca_bundle")
    ca_bundle = _existing(bundle, "proxy_ca_bundle") if bundle else None
    return Proxy(parts.scheme, host, port, _basic_authorization(parts), ca_bundle)


def _with_scheme(url: str) -> str:
    if "://" in url:
        return url
    return f"http:{url}" if url.startswith("//") else f"http://{url}"


def _basic_authorization(parts: SplitResult) -> str | None:
    if not parts.username:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
