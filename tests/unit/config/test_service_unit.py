"""The service's unit as `check` reads it, and what it lets the service's user do."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from click.testing import CliRunner

from siemrelay.cli.check import check
from siemrelay.config import substitution
from siemrelay.config.checks import service
from siemrelay.config.checks.service import LOW_PORTS, READ_ALL, check_as_service
from siemrelay.config.load import load, load_text
from siemrelay.config.service_unit import ServiceUnit, service_unit
from siemrelay.config.substitution import substitute
from siemrelay.config.yaml_document import parse
from siemrelay.core.errors import ConfigurationRefused
from tests.support.servers import other_users_run_it

ROOT = Path(__file__).parents[3]
SHIPPED = (ROOT / "systemd/siemrelay.service").read_text()
DROP_INS = "etc/systemd/system/siemrelay.service.d"
USER = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def installed(root: Path, files: Mapping[str, str]) -> ServiceUnit:
    for name, text in {"usr/local/lib/systemd/system/siemrelay.service": SHIPPED, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    unit = service_unit(root)
    assert unit is not None
    return unit


# -- reading the unit ------------------------------------------------------


def test_without_a_unit_there_is_none(tmp_path: Path) -> None:
    assert service_unit(tmp_path) is None


def test_the_shipped_unit_is_read_for_what_it_says(tmp_path: Path) -> None:
    unit = installed(tmp_path, {})
    assert (unit.user, unit.config) == ("siemrelay", "/etc/siemrelay/siemrelay.yaml")
    assert (unit.credentials, unit.capabilities, unit.sockets) == ({}, frozenset(), False)
    assert unit.made == tuple(
        map(Path, ("/var/lib/siemrelay", "/var/log/siemrelay", "/run/siemrelay"))
    )
    assert unit.may_write(Path("/var/lib/siemrelay/buffer.db"))
    assert not unit.may_write(Path("/srv/audit/archive.json"))
    assert unit.hides(Path("/home/ada/audit.json")) == "ProtectHome="
    assert unit.hides(Path("/var/log/audit.json")) is None
    assert unit.stop_timeout_s == 45


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("TimeoutStopSec=1min 30s", 90), ("TimeoutStopSec=2h", 7200), ("TimeoutStopSec=500ms", 0.5),
     ("TimeoutStopSec=infinity", math.inf), ("TimeoutStopSec=a while", 90)],
)  # fmt: skip
def test_the_time_after_which_systemd_kills_is_read(
    tmp_path: Path, written: str, seconds: float
) -> None:
    unit = installed(tmp_path, {f"{DROP_INS}/stop.conf": f"[Service]\n{written}\n"})
    assert unit.stop_timeout_s == seconds


def test_drop_ins_add_to_the_unit_in_the_order_of_their_names(tmp_path: Path) -> None:
    unit = installed(tmp_path, {
        f"{DROP_INS}/10-credentials.conf": "[Service]\n"
        "LoadCredential=token:/etc/siemrelay/credentials/token\nLoadCredential=plain\n",
        f"{DROP_INS}/20-write.conf": "[Service]\nReadWritePaths=/srv/audit \\\n  -/srv/more\n",
        f"{DROP_INS}/30-user.conf": "[Service]\nUser=relay\n",
        "usr/lib/systemd/system/siemrelay.service.d/40-low.conf":
        "[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
        "etc/systemd/system/siemrelay.socket": "[Socket]\nListenStream=514\n",
    })  # fmt: skip
    assert unit.user == "relay"
    assert unit.credentials == {"token": Path("/etc/siemrelay/credentials/token")}
    assert unit.may_write(Path("/srv/audit/x"))
    assert unit.may_write(Path("/srv/more/x"))
    assert unit.capabilities == {"CAP_NET_BIND_SERVICE"}
    assert unit.sockets


def test_an_empty_value_takes_the_earlier_ones_away(tmp_path: Path) -> None:
    unit = installed(tmp_path, {
        f"{DROP_INS}/1.conf": "[Service]\nProtectHome=\nAmbientCapabilities=CAP_A CAP_B\n",
        f"{DROP_INS}/2.conf": "[Service]\nAmbientCapabilities=\nAmbientCapabilities=CAP_C\n",
    })  # fmt: skip
    assert unit.capabilities == {"CAP_C"}
    assert unit.hides(Path("/home/ada/audit.json")) is None


def test_the_file_of_a_drop_in_under_etc_replaces_the_one_of_a_package(tmp_path: Path) -> None:
    unit = installed(tmp_path, {
        "usr/lib/systemd/system/siemrelay.service.d/a.conf": "[Service]\nUser=packaged\n",
        f"{DROP_INS}/a.conf": "[Service]\nUser=edited\n",
    })  # fmt: skip
    assert unit.user == "edited"


def test_the_environment_comes_from_the_unit_and_its_file(tmp_path: Path) -> None:
    unit = installed(tmp_path, {
        f"{DROP_INS}/a.conf": '[Service]\nEnvironment="A=1 2" B=3\n',
        "etc/siemrelay/environment": "# proxies\nHTTPS_PROXY='http://proxy:3128'\nB=4\n\nodd\n",
    })  # fmt: skip
    assert unit.environment == {"A": "1 2", "B": "4", "HTTPS_PROXY": "http://proxy:3128"}


# -- secrets of the service, for a person in a shell -----------------------


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return monkeypatch


def with_unit(shell: pytest.MonkeyPatch, unit: ServiceUnit | None) -> None:
    shell.setattr(substitution, "service_unit", lambda: unit)


def test_root_reads_a_credential_from_where_the_unit_gets_it(
    tmp_path: Path, shell: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    unit = installed(tmp_path, {
        f"{DROP_INS}/a.conf": f"[Service]\nLoadCredential=token:{tmp_path}/token\n",
        "etc/siemrelay/environment": "PLACE=north\n",
    })  # fmt: skip
    with_unit(shell, unit)
    document = parse("a: Bearer ${credential:token}\nb: ${PLACE}\n")
    assert substitute(document).value == {"a": "Bearer s3cret", "b": "north"}
    assert document.faults == []


def test_a_credential_that_the_unit_does_not_have_is_named_with_the_line_to_add(
    tmp_path: Path, shell: pytest.MonkeyPatch
) -> None:
    with_unit(shell, installed(tmp_path, {}))
    document = parse("a: ${credential:token}\n")
    substitute(document)
    (fault,) = document.faults
    assert "add LoadCredential=token:/PATH to the unit" in fault.message
    # `init` writes the reference before anybody could add the line.
    loaded = load_text(CONFIG, "x.yaml", need_credentials=False)
    assert [unread.message for unread in loaded.unread] == [fault.message]


CONFIG = """\
sources: {a: {type: file, path: /nowhere/*.json}}
sinks: {s: {siem: splunk, url: 'https://s:8088', authorization: 'Splunk ${credential:token}'}}
"""


def test_what_sends_nothing_needs_no_credentials(tmp_path: Path, shell: pytest.MonkeyPatch) -> None:
    with_unit(shell, None)
    (unread,) = load_text(CONFIG, "x.yaml", need_credentials=False).unread
    assert (unread.key, unread.line) == ("sinks.s.authorization", 2)
    with pytest.raises(ConfigurationRefused, match="there is no credential token"):
        load_text(CONFIG, "x.yaml")
    file = tmp_path / "x.yaml"
    file.write_text(CONFIG)
    result = CliRunner().invoke(check, ["-c", str(file)])
    assert result.exit_code == 0
    assert f"warning: {file}:2:" in result.stderr


# -- what the service's user may do ----------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own are closed again by each run of it."""
    with TemporaryDirectory(prefix="siemrelay-place-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


UNIT = ServiceUnit(
    user=USER, config="", credentials={}, environment={}, capabilities=frozenset(),
    made=(), writable=None, hidden={}, sockets=False,
)  # fmt: skip


def faults(file: Path, unit: ServiceUnit = UNIT, *, running: bool = False) -> list[str]:
    return [
        fault.located(file.name) for fault in check_as_service(load(file), unit, running=running)
    ]


def configuration(place: Path, source: str, sink: str = "{server: 127.0.0.1}") -> Path:
    (place / "state").mkdir(mode=0o777)
    (place / "state").chmod(0o777)
    file = place / "x.yaml"
    file.write_text(
        f"state_dir: {place}/state\nendpoint: {{listen: off}}\n"
        f"sources:\n  a: {source}\nsinks:\n  s: {sink}\n"
    )
    file.chmod(0o644)
    return file


@as_root
@other_users_run_it
def test_check_by_root_on_the_services_file_reports_what_the_service_lacks(
    place: Path, shell: pytest.MonkeyPatch
) -> None:
    file = configuration(
        place, f"{{type: file, path: {place}/*.json}}",
        "{siem: splunk, url: 'https://s:8088', authorization: 'Splunk ${credential:token}'}",
    )  # fmt: skip
    (place / "audit.json").touch(mode=0o600)
    unit = msgspec.structs.replace(UNIT, config=str(file))
    with_unit(shell, unit)
    shell.setattr("siemrelay.cli.check.service_unit", lambda: unit)
    result = CliRunner().invoke(check, ["-c", str(file)])
    assert result.exit_code == 78
    unreadable, lacking, _ = result.stderr.splitlines()
    assert "the service's user nobody cannot read" in unreadable
    assert "the service gets no credential token" in lacking
    other = msgspec.structs.replace(UNIT, config="/elsewhere.yaml")  # not the service's file
    shell.setattr("siemrelay.cli.check.service_unit", lambda: other)
    assert CliRunner().invoke(check, ["-c", str(file)]).exit_code == 0


@as_root
@other_users_run_it
def test_a_configuration_that_the_user_can_work_with_has_no_faults(place: Path) -> None:
    (place / "audit.json").write_text("{}\n")
    (place / "audit.json").chmod(0o644)
    file = configuration(place, f"{{type: file, path: {place}/*.json}}")
    assert faults(file) == []


@as_root
@other_users_run_it
def test_files_and_directories_that_the_user_cannot_read_are_named_with_their_owner(
    place: Path,
) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o750)
    (closed / "audit.json").touch()
    (place / "audit.json").touch(mode=0o600)
    file = configuration(place, f"{{type: file, path: ['{closed}/*.json', '{place}/*.json']}}")
    found = faults(file)
    assert [line.partition(": ")[0] for line in found] == ["x.yaml:4:25", "x.yaml:4:25"]
    assert f"cannot read {closed}: directory {closed} has root:root 0750" in found[0]
    assert f"{place}/audit.json: file {place}/audit.json has root:root 0600" in found[1]
    assert "siemrelay install --read-all-files" in found[0]
    reader = msgspec.structs.replace(UNIT, capabilities=frozenset({READ_ALL}))
    assert faults(file, reader) == []


@as_root
@other_users_run_it
def test_a_configuration_and_secrets_that_only_root_reads_are_faults(place: Path) -> None:
    (place / "token").write_text("s3cret")
    (place / "token").chmod(0o600)
    file = configuration(
        place, "{type: stdin}",
        f"{{url: 'http://127.0.0.1', authorization: '${{file:{place}/token}}'}}",
    )  # fmt: skip
    file.chmod(0o600)
    found = faults(file)
    assert len(found) == 2
    assert f"cannot read this file: file {file} has root:root 0600" in found[0]
    assert f"cannot read {place}/token" in found[1]


@as_root
@other_users_run_it
def test_products_that_the_services_user_cannot_read_are_faults(place: Path) -> None:
    products = place / "products"
    products.mkdir(mode=0o755)
    (products / "doors.yaml").write_text("summary: doors")
    (products / "doors.yaml").chmod(0o600)
    file = configuration(place, "{type: stdin, product: doors}")
    file.write_text(f"products_dir: {products}\n{file.read_text()}")
    (found,) = faults(file)
    assert f"cannot read {products}/doors.yaml: file {products}/doors.yaml has root:root" in found


@as_root
@other_users_run_it
def test_places_that_the_user_cannot_write_are_faults(place: Path) -> None:
    archive = place / "archive"
    archive.mkdir(mode=0o755)
    file = configuration(
        place, "{type: stdin}", f"{{protocol: file, path: {archive}/a.json, format: json}}"
    )
    (place / "state").chmod(0o755)
    state, sink = faults(file)
    assert f"cannot write {place}/state: directory {place}/state has root:root 0755" in state
    assert f"cannot write {archive}/a.json" in sink
    made = msgspec.structs.replace(UNIT, made=(place,))
    assert faults(file, made) == []


@as_root
@other_users_run_it
def test_what_the_unit_makes_read_only_or_hides_is_a_fault_with_the_setting(place: Path) -> None:
    file = configuration(
        place, f"{{type: file, path: '{place}/*.json'}}",
        f"{{protocol: file, path: {place}/state/a.json, format: json}}",
    )  # fmt: skip
    strict = msgspec.structs.replace(UNIT, writable=(), hidden={place: "ProtectHome="})
    state, source, sink = faults(file, strict)
    assert f"add ReadWritePaths={place}/state to the unit" in state
    assert "ProtectHome= in the unit hides it" in source
    assert f"add ReadWritePaths={place}/state to the unit" in sink


@as_root
@other_users_run_it
def test_a_stop_that_systemd_would_cut_short_is_a_fault(place: Path) -> None:
    file = configuration(place, "{type: stdin}")
    unit = msgspec.structs.replace(UNIT, stop_timeout_s=10)
    (fault,) = faults(file, unit)
    assert "shutdown_timeout: systemd kills the service 10s after a stop" in fault
    assert faults(file, msgspec.structs.replace(UNIT, stop_timeout_s=11)) == []


@as_root
@other_users_run_it
def test_ports_that_the_service_cannot_take_are_faults(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        file = configuration(
            place, f"{{type: syslog, listen: ['tcp://127.0.0.1:{port}', 'udp://127.0.0.1:79']}}"
        )
        # Kernels of containers may leave all ports to everybody.
        monkeypatch.setattr(service, "lowest_free_port", lambda: 1024)
        taken, low = faults(file)
        assert "another program has it" in taken
        assert "ports below 1024 need `siemrelay install --low-ports`" in low
        for unit, running in (
            (msgspec.structs.replace(UNIT, sockets=True), False),
            (UNIT, True),
        ):
            assert faults(file, unit, running=running) == []
        allowed = msgspec.structs.replace(UNIT, capabilities=frozenset({LOW_PORTS}))
        assert faults(file, allowed) == [taken]
