from __future__ import annotations

import base64
import os
import subprocess
import sys

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from tanksend._sigv4 import Signer
from tanksend.exceptions import SettingError
from tanksend.transports._settings import Endpoint, Proxy, load_settings, resolve_settings


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An environment without AWS or proxy variables, and an empty home; `files` writes into it."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    return tmp_path


def files(home, config="", credentials=""):
    """Write the AWS files; an empty one is not there."""
    for name, text in (("config", config), ("credentials", credentials)):
        if text:
            (home / ".aws" / name).write_text(text, encoding="utf-8")


class _Answer:
    """An empty answer, so that botocore never touches the network."""

    def read(self):
        return b"{}"

    def stream(self):
        return iter([b"{}"])


def ask_botocore(*, region=None, profile=None, session=None, endpoint_url=None):
    """Let botocore make a request and say where it would have gone, and the region."""
    session = session or botocore.session.Session(profile=profile)
    client = session.create_client(
        "sesv2",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
    )
    urls = []

    def answer(request, **_):
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, _Answer())

    client.meta.events.register("before-send", answer)
    client.get_account()
    return urls[0], client.meta.region_name


def ask_us(**arguments):
    """Where our request would go, as `ask_botocore` says it."""
    settings = load_settings(**arguments)
    endpoint = settings.endpoint
    url = f"{endpoint.scheme}://{endpoint.host_header}{endpoint.base_path}/v2/email/account"
    return url, settings.region


REGION = {"AWS_DEFAULT_REGION": "eu-west-1"}
URL = {"AWS_ENDPOINT_URL": "https://a.example"}
CONFIG = """
[default]
region = us-east-2
use_fips_endpoint = True

[profile plain]
region = ap-northeast-2

[profile dual]
region = cn-north-1
use_dualstack_endpoint = true

[profile url]
region = us-west-2
endpoint_url = https://mail.example:8443

[profile services]
region = us-west-2
endpoint_url = https://mail.example
services = local

[profile ignoring]
region = us-west-2
endpoint_url = https://mail.example
ignore_configured_endpoint_urls = true

[profile no-region]
output = json

[profile other-services]
region = us-west-1
services = elsewhere

[services local]
sesv2 =
  endpoint_url = http://127.0.0.1:4566
s3 =
  endpoint_url = http://127.0.0.1:4567

[services elsewhere]
s3 =
  endpoint_url = http://127.0.0.1:4567
"""

CASES = {
    "region from the environment": (REGION, {}),
    "region argument": (REGION, {"region": "sa-east-1"}),
    "default profile": ({}, {}),
    "argument before the profile": ({}, {"region": "sa-east-1"}),
    "environment before the profile": ({"AWS_DEFAULT_REGION": "eu-west-1", "AWS_PROFILE": "plain"}, {}),
    "profile from the environment": ({"AWS_PROFILE": "plain"}, {}),
    "the older name of it first": ({"AWS_PROFILE": "plain", "AWS_DEFAULT_PROFILE": "dual"}, {}),
    "profile argument": ({"AWS_PROFILE": "plain"}, {"profile": "dual"}),
    "fips": (REGION | {"AWS_USE_FIPS_ENDPOINT": "true"}, {}),
    "fips, loudly": (REGION | {"AWS_USE_FIPS_ENDPOINT": "TRUE"}, {}),
    "fips by another word": (REGION | {"AWS_USE_FIPS_ENDPOINT": "1"}, {}),
    "fips switched off": ({"AWS_USE_FIPS_ENDPOINT": "false"}, {}),
    "dual-stack": (REGION | {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, {}),
    "both": (REGION | {"AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_USE_FIPS_ENDPOINT": "true"}, {}),
    "pseudo region": ({"AWS_DEFAULT_REGION": "fips-us-gov-west-1"}, {}),
    "pseudo region, the other way": ({}, {"region": "us-gov-west-1-fips"}),
    "global url": (REGION | {"AWS_ENDPOINT_URL": "https://a.example/base/path/"}, {}),
    "service's url": (REGION | URL | {"AWS_ENDPOINT_URL_SESV2": "https://b.example"}, {}),
    "url of another service": (REGION | {"AWS_ENDPOINT_URL_SES": "https://b.example"}, {}),
    "empty url": (REGION | {"AWS_ENDPOINT_URL": "", "AWS_PROFILE": "url"}, {}),
    "url argument": (REGION | {"AWS_ENDPOINT_URL": "https://a.example"}, {"endpoint_url": "http://localhost:8080"}),
    "ipv6 url": (REGION, {"endpoint_url": "http://[::1]:8080"}),
    "url with the usual port": (REGION, {"endpoint_url": "https://a.example:8443/x"}),
    "urls ignored": (REGION | URL | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, {}),
    "urls ignored but the argument": (
        REGION | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"endpoint_url": "https://c.example"},
    ),
    "fips says nothing beside a url": (REGION | URL | {"AWS_USE_FIPS_ENDPOINT": "true"}, {}),
    "profile's url": ({"AWS_PROFILE": "url"}, {}),
    "environment's url before the profile's": ({"AWS_PROFILE": "url", "AWS_ENDPOINT_URL": "https://a.example"}, {}),
    "services section": ({}, {"profile": "services"}),
    "services section without ours": ({}, {"profile": "other-services"}),
    "environment's url before the section's": ({"AWS_ENDPOINT_URL": "https://a.example"}, {"profile": "services"}),
    "profile that ignores urls": ({"AWS_PROFILE": "ignoring", "AWS_ENDPOINT_URL": "https://a.example"}, {}),
    "and is overruled": ({"AWS_PROFILE": "ignoring", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_requests_go_where_botocores_go(home, monkeypatch, case):
    """Same URL and same region as a real botocore client, for arguments, environment, profiles and files."""
    environment, arguments = CASES[case]
    files(home, CONFIG)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ask_us(**arguments) == ask_botocore(**arguments)


WITHOUT_FILES = [
    name
    for name, (environment, arguments) in CASES.items()
    if "AWS_DEFAULT_REGION" in environment and "AWS_PROFILE" not in environment and "profile" not in arguments
]


@pytest.mark.parametrize("case", WITHOUT_FILES)
def test_without_files_too(monkeypatch, case):
    """The same, where only the environment speaks."""
    environment, arguments = CASES[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ask_us(**arguments) == ask_botocore(**arguments)


def test_settings_in_the_credentials_file_count(home):
    """A profile's settings may stand in either file."""
    files(home, credentials="[default]\naws_access_key_id = x\naws_secret_access_key = y\nregion = eu-north-1\n")
    assert ask_us() == ask_botocore()
    assert load_settings().region == "eu-north-1"


def test_files_may_lie_elsewhere(home, monkeypatch):
    """AWS_CONFIG_FILE with variables and a tilde, as botocore expands it."""
    (home / "other.ini").write_text("[default]\nREGION = eu-north-1\n")
    monkeypatch.setenv("PLACE", "other")
    monkeypatch.setenv("AWS_CONFIG_FILE", "~/$PLACE.ini")
    assert ask_us() == ask_botocore()
    assert load_settings().region == "eu-north-1"


def test_sessions_speak_for_themselves(home, monkeypatch):
    """A given botocore session: its own region, its client config, its profile."""
    files(home, CONFIG)
    session = botocore.session.Session(profile="dual")
    assert ask_us(session=session) == ask_botocore(session=session)
    assert load_settings(session=session).region_source == "the profile 'dual'"
    session.set_config_variable("region", "cn-northwest-1")
    assert ask_us(session=session) == ask_botocore(session=session)
    assert load_settings(session=session).region_source == "the session"
    session = botocore.session.Session()
    session.set_default_client_config(Config(region_name="ca-west-1", use_fips_endpoint=False))
    assert ask_us(session=session) == ask_botocore(session=session)
    assert load_settings(session=session).region_source == "the session's client config"
    assert load_settings(session=session, region="eu-west-3").region == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert load_settings(session=botocore.session.Session()).region_source == "the AWS_DEFAULT_REGION variable"


def test_a_boto3_session_is_taken(home):
    """boto3 wraps botocore's session; its region argument counts."""
    boto3 = pytest.importorskip("boto3")
    files(home, CONFIG)
    assert load_settings(session=boto3.Session(region_name="eu-south-2")).region == "eu-south-2"
    assert load_settings(session=boto3.Session(profile_name="plain")).region == "ap-northeast-2"


class _AsyncSession:
    full_config: dict[str, object] = {}  # noqa: RUF012 - a fake.

    async def get_credentials(self):
        return None


@pytest.mark.parametrize("session", [object(), "default", _AsyncSession()])
def test_other_sessions_are_refused(session):
    """Something else, or a session of coroutines, is a programming error."""
    with pytest.raises(TypeError, match="botocore or boto3"):
        load_settings(session=session, region="eu-west-1")


@pytest.mark.parametrize(
    ("environment", "arguments", "source"),
    [
        ({}, {"region": "eu-west-1"}, "the region argument"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, {}, "the AWS_DEFAULT_REGION variable"),
        ({"AWS_REGION": "eu-west-1"}, {}, "the AWS_REGION variable"),
        ({"AWS_REGION": "eu-west-9", "AWS_DEFAULT_REGION": "eu-west-1"}, {}, "the AWS_DEFAULT_REGION variable"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": ""}, {}, "the AWS_REGION variable"),
    ],
)
def test_it_says_where_the_region_came_from(monkeypatch, environment, arguments, source):
    """AWS_REGION, which botocore does not read, is the last resort."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(**arguments)
    assert (settings.region, settings.region_source) == ("eu-west-1", source)


def test_profiles_name_no_account(home):
    """Sign-on tools put account ids into profile names; texts leave them out."""
    files(home, "[profile 123456789012_Admin]\nregion = eu-west-1\n[default]\nregion = us-east-1\n")
    assert load_settings(profile="123456789012_Admin").region_source == "the profile '…_Admin'"
    assert load_settings().region_source == "the profile 'default'"
    with pytest.raises(SettingError, match="no profile '…_Other'"):
        load_settings(profile="123456789012_Other")


@pytest.mark.parametrize("files_there", [False, True])
def test_no_region_says_the_ways_to_set_one(home, monkeypatch, files_there):
    """Argument, variable, profile."""
    if files_there:
        files(home, CONFIG)
        monkeypatch.setenv("AWS_PROFILE", "no-region")
    with pytest.raises(SettingError, match=r"region=.*AWS_DEFAULT_REGION.*~/\.aws/config"):
        load_settings()


def test_a_bad_region_says_where_it_came_from(monkeypatch):
    """The value is not repeated, its source is."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "evil.example/#")
    with pytest.raises(SettingError, match="It came from the AWS_DEFAULT_REGION variable") as caught:
        load_settings()
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "arguments", "text"),
    [
        ("[default]\nservices = gone\nregion = eu-west-1\n", {}, "services section"),
        ("[default\nregion = secretword\n", {}, "cannot be read"),
        ("[default]\nregion = eu-west-1\n", {"profile": "absent"}, "no profile 'absent'"),
        ("[default]\nregion = eu-west-1\n", {"profile": "default", "session": object()}, "either profile or session"),
    ],
)
def test_broken_files_are_setting_errors(home, config, arguments, text):
    """A missing section, a syntax error, a missing profile: one clear error, without a line of the file."""
    files(home, config)
    with pytest.raises(SettingError, match=text) as caught:
        load_settings(**arguments)
    assert "secretword" not in str(caught.value)


def test_an_unreadable_file_is_left_to_botocore(home):
    """Bytes that are no text may hide a setting: botocore says what is wrong with them."""
    (home / ".aws" / "config").write_bytes(b"[default]\nx = \xff\n")
    with pytest.raises(SettingError, match="cannot be read"):
        load_settings(region="eu-west-1")


def test_a_directory_is_no_file(home, monkeypatch):
    """As for botocore, a path that is no file is as good as none."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home))
    assert load_settings(region="eu-west-1").region == "eu-west-1"


def test_a_section_that_is_no_mapping_says_nothing(home):
    """`sesv2 = x` in a services section has no endpoint in it."""
    files(home, "[default]\nregion = eu-west-1\nservices = odd\n[services odd]\nsesv2 = x\n")
    assert load_settings().endpoint.host == "email.eu-west-1.amazonaws.com"


BAD_URLS = [
    "mail.example",
    "ftp://mail.example",
    "https://",
    "https://mail.example:99999",
    "https://mail.example:0",
    "https://mail.example:x",
    "https://user:hunter2@mail.example",
    "https://mail.example/?q=hunter2",
    "https://mail.example/#hunter2",
    "https://mail.example/a b",
    "https://mail.example/../x",
    "https://mail.example\r\nX: hunter2",
    "https://mäil.example",
    "https://mail_.-.example",
    "https://[fe80::1%25eth0]",
    "https://[::1",
    "https://[zz]",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_endpoint_urls_name_their_setting(monkeypatch, url):
    """The text says which setting, and does not repeat a value that may hold a password."""
    with pytest.raises(SettingError, match="the endpoint_url argument") as caught:
        load_settings(region="eu-west-1", endpoint_url=url)
    assert "hunter2" not in str(caught.value)
    if url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", url.replace("\r\n", " "))
        with pytest.raises(SettingError, match="the AWS_ENDPOINT_URL_SESV2 variable"):
            load_settings(region="eu-west-1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "[::1]"])
def test_plain_http_on_this_machine(host):
    """Loopback needs no TLS."""
    settings = load_settings(region="eu-west-1", endpoint_url=f"http://{host}:8080")
    assert not settings.endpoint.tls
    assert settings.endpoint.host == host.strip("[]").lower()


@pytest.mark.parametrize(
    "host", ["mail.example", "10.0.0.1", "localhost.example", "[fe80::1]", "0.0.0.0", "127.0.0.1.nip.io"]
)
def test_plain_http_elsewhere_is_refused(home, host):
    """From an argument and from a file; the error names the setting."""
    with pytest.raises(SettingError, match=r"endpoint_url argument has no TLS.*use https"):
        load_settings(region="eu-west-1", endpoint_url=f"http://{host}:8080")
    files(home, f"[default]\nendpoint_url = http://{host}\n")
    with pytest.raises(SettingError, match="endpoint_url of the profile has no TLS"):
        load_settings(region="eu-west-1")


@pytest.mark.parametrize(
    ("endpoint", "header"),
    [
        (Endpoint("https", "a.example", 443), "a.example"),
        (Endpoint("https", "a.example", 80), "a.example:80"),
        (Endpoint("http", "127.0.0.1", 80), "127.0.0.1"),
        (Endpoint("http", "::1", 4566), "[::1]:4566"),
        (Endpoint("https", "::1", 443), "[::1]"),
    ],
)
def test_the_host_header_has_a_port_where_it_is_unusual(endpoint, header):
    """Brackets around IPv6, the port only if it is not the scheme's."""
    assert endpoint.host_header == header


def test_the_signer_fits_the_endpoint():
    """Host, port, base path and region are the endpoint's."""
    settings = load_settings(region="eu-west-1", endpoint_url="https://gw.example:8443/ses/")
    signer = settings.signer("tanksend/1")
    assert isinstance(signer, Signer)
    assert (signer.host, signer.region) == ("gw.example:8443", "eu-west-1")
    assert settings.endpoint.base_path == "/ses"


# --- certificates ---


def test_certificates_come_from_where_botocore_has_them(home, monkeypatch):
    """AWS_CA_BUNDLE, then the profile, then REQUESTS_CA_BUNDLE; empty is unset."""
    bundles = {name: home / name for name in ("requests", "profile", "variable")}
    for path in bundles.values():
        path.write_text("")
    assert load_settings(region="eu-west-1").ca_bundle is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundles["requests"]))
    assert load_settings(region="eu-west-1").ca_bundle == str(bundles["requests"])
    files(home, f"[default]\nca_bundle = {bundles['profile']}\n")
    assert load_settings(region="eu-west-1").ca_bundle == str(bundles["profile"])
    assert botocore.session.Session().get_config_variable("ca_bundle") == str(bundles["profile"])
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundles["variable"]))
    assert load_settings(region="eu-west-1").ca_bundle == str(bundles["variable"])
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    assert load_settings(region="eu-west-1").ca_bundle is None


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_missing_bundle_is_an_error(monkeypatch, variable):
    """Better now than as a TLS failure of every message."""
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with pytest.raises(SettingError, match=variable):
        load_settings(region="eu-west-1")


# --- proxies ---

PROXIES = {
    "none": {},
    "https": {"HTTPS_PROXY": "http://proxy.example:3128"},
    "lower case": {"https_proxy": "http://proxy.example:3128"},
    "lower case first": {"HTTPS_PROXY": "http://upper.example:1", "https_proxy": "http://lower.example:2"},
    "not ours": {"HTTP_PROXY": "http://proxy.example:3128"},
    "all is not read": {"ALL_PROXY": "http://proxy.example:3128"},
    "empty": {"HTTPS_PROXY": ""},
    "no scheme": {"HTTPS_PROXY": "proxy.example:3128"},
    "slashes only": {"HTTPS_PROXY": "//proxy.example:3128"},
    "no port": {"HTTPS_PROXY": "http://proxy.example"},
    "tls": {"HTTPS_PROXY": "https://proxy.example"},
    "ipv6": {"HTTPS_PROXY": "http://[::1]:3128"},
    "with keys": {"HTTPS_PROXY": "http://us%40er:p%3Aw%2F%25@proxy.example:3128"},
    "excepted": {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.org,.amazonaws.com"},
    "excepted, lower case": {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "amazonaws.com"},
    "all excepted": {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "*"},
    "others excepted": {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "example.org"},
}


@pytest.mark.parametrize("case", PROXIES)
def test_proxies_are_those_of_botocore(monkeypatch, case):
    """Host, port, scheme and the header with the proxy's own credentials."""
    for name, value in PROXIES[case].items():
        monkeypatch.setenv(name, value)
    settings = load_settings(region="eu-west-1")
    url = f"https://{settings.endpoint.host_header}"
    theirs = ProxyConfiguration(get_environ_proxies(url))
    expected = theirs.proxy_url_for(url)
    if expected is None:
        assert settings.proxy is None
        return
    proxy = settings.proxy
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    usual = {"http": 80, "https": 443}[proxy.scheme]
    assert f"{proxy.scheme}://{host}" + (f":{proxy.port}" if proxy.port != usual else "") == (
        expected.replace("us%40er:p%3Aw%2F%25@", "")
    )
    assert proxy.authorization == theirs.proxy_headers_for(expected).get("Proxy-Authorization")


def test_proxy_credentials_are_decoded_and_not_shown(monkeypatch):
    """Percent-encoded in the URL, UTF-8 in the header, absent from the repr; a user alone has an empty password."""
    monkeypatch.setenv("HTTPS_PROXY", "http://us%40er:s%C3%A9cret@proxy.example:3128")
    proxy = load_settings(region="eu-west-1").proxy
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")).decode() == "us@er:sécret"
    assert repr(proxy) == "Proxy(scheme='http', host='proxy.example', port=3128, ca_bundle=None)"
    monkeypatch.setenv("HTTPS_PROXY", "http://user@proxy.example:3128")
    proxy = load_settings(region="eu-west-1").proxy
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")) == b"user:"


@pytest.mark.parametrize(
    "url", ["socks5://u:hunter2@proxy.example:1080", "http://u:hunter2@", "http://u:hunter2@p:x", "http://a b"]
)
def test_bad_proxies_name_their_setting(monkeypatch, url):
    """Without a word of the URL, which may hold a password."""
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(SettingError, match="the HTTPS_PROXY variable") as caught:
        load_settings(region="eu-west-1")
    assert "hunter2" not in str(caught.value)


def test_without_tls_only_a_proxy_on_this_machine(monkeypatch):
    """A plain endpoint on loopback stays on loopback; a TLS one there goes through the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert load_settings(region="eu-west-1", endpoint_url="http://127.0.0.1:1").proxy is None
    expected = Proxy("http", "proxy.example", 3128)
    assert load_settings(region="eu-west-1", endpoint_url="https://127.0.0.1:1").proxy == expected
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    assert load_settings(region="eu-west-1", endpoint_url="http://127.0.0.1:1").proxy == Proxy(
        "http", "127.0.0.1", 3128
    )


def test_a_sessions_client_config_may_name_the_proxy(home, monkeypatch):
    """Config(proxies=...) goes before the environment and NO_PROXY; its own certificates come along."""
    bundle = home / "proxy.pem"
    bundle.write_text("")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "*")
    session = botocore.session.Session()
    config = Config(proxies={"https": "https://other.example"}, proxies_config={"proxy_ca_bundle": str(bundle)})
    session.set_default_client_config(config)
    settings = load_settings(region="eu-west-1", session=session)
    assert settings.proxy == Proxy("https", "other.example", 443, ca_bundle=str(bundle))
    session.set_default_client_config(Config(proxies={}))
    assert load_settings(region="eu-west-1", session=session).proxy is None
    options = {"proxy_client_cert": "/nowhere.pem"}
    session.set_default_client_config(Config(proxies={"https": "https://other.example"}, proxies_config=options))
    with pytest.raises(SettingError, match="proxy_client_cert"):
        load_settings(region="eu-west-1", session=session)


# --- when botocore is loaded ---

SCRIPT = """
import sys
from tanksend.transports._settings import load_settings
{load}
sys.exit("botocore" in sys.modules)
"""


@pytest.mark.parametrize(
    ("config", "variables", "loaded"),
    [
        ("", {}, False),
        ("[default]\noutput = json\n", {}, False),
        ("[default]\nregion = eu-west-9\n", {}, False),
        ("[default]\nregion = eu-west-9\n", {"AWS_DEFAULT_REGION": ""}, False),
        ("[default]\nuse_fips_endpoint = false\n", {}, True),
        ("[default]\nca_bundle =\n", {}, True),
        ("[default]\nca_bundle =\n", {"AWS_CA_BUNDLE": ""}, False),
        ("[profile x]\nregion = eu-west-9\n", {"AWS_PROFILE": "x"}, True),
    ],
)
def test_botocore_is_loaded_only_where_a_file_may_matter(home, config, variables, loaded):
    """The environment has the region; a file that names nothing still open is not worth 150 ms."""
    files(home, config)
    environment = os.environ | {"AWS_DEFAULT_REGION": "eu-west-1"} | variables
    arguments = "" if environment["AWS_DEFAULT_REGION"] else "region='eu-west-1'"
    load = f"load_settings({arguments})"
    script = SCRIPT.format(load=load)
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert ended.returncode == loaded


@pytest.mark.anyio
@pytest.mark.parametrize("with_files", [False, True])
async def test_resolving_in_a_loop_gives_the_same(home, with_files):
    """With files it goes through a worker thread, without it does not need to."""
    if with_files:
        files(home, CONFIG)
    assert await resolve_settings(region="eu-west-1") == load_settings(region="eu-west-1")
    assert (await resolve_settings(region="eu-west-1")).endpoint_source == "the region"


@pytest.mark.anyio
async def test_errors_come_back_from_the_thread(home):
    """As they are."""
    files(home, CONFIG)
    with pytest.raises(SettingError, match="no profile"):
        await resolve_settings(profile="absent")
