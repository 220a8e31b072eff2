"""`siemrelay install` and `uninstall`: what they write and leave alone, what a wheel holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from siemrelay.cli.setup import system_files
from siemrelay.cli.setup.install import install
from siemrelay.cli.setup.uninstall import uninstall
from siemrelay.products.product import BUILT_IN
from tests.support.servers import missing, other_users_run_it, program

ROOT = Path(__file__).parents[3]
UNIT = Path("usr/local/lib/systemd/system/siemrelay.service")
LOW_PORTS = UNIT.parent / "siemrelay.service.d/low-ports.conf"


def installs(root: Path, *options: str) -> Result:
    arguments = ["--root", str(root), "--program", "/opt/siemrelay/bin/siemrelay", *options]
    result = CliRunner().invoke(install, arguments)
    assert result.exit_code == 0, result.output
    return result


def files_below(root: Path) -> dict[str, str]:
    def content(path: Path) -> str:
        return path.read_bytes().decode("utf-8", "replace")

    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else content(path)
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_a_dry_run_names_every_file_and_writes_none(tmp_path: Path) -> None:
    result = installs(tmp_path, "--dry-run")
    assert f"write /{UNIT}\n" in result.output
    assert files_below(tmp_path) == {}


def test_a_second_run_changes_nothing_and_says_so(tmp_path: Path) -> None:
    installs(tmp_path)
    first = files_below(tmp_path)
    result = installs(tmp_path)
    assert files_below(tmp_path) == first
    assert {line.partition(":")[0] for line in result.output.splitlines()} == {"as it should be"}


def test_the_unit_runs_the_program_that_installed_it(tmp_path: Path) -> None:
    installs(tmp_path, "--program", "/srv/relay/bin/siemrelay")
    unit = (tmp_path / UNIT).read_text()
    assert "ExecStart=/srv/relay/bin/siemrelay run" in unit
    assert "ExecReload=/srv/relay/bin/siemrelay reload" in unit
    assert "/opt/siemrelay" not in unit
    assert str((tmp_path / "usr/local/bin/siemrelay").readlink()) == "/srv/relay/bin/siemrelay"


def test_a_drop_in_that_was_asked_for_once_stays_until_it_is_asked_away(tmp_path: Path) -> None:
    installs(tmp_path, "--low-ports")
    installs(tmp_path)
    assert (tmp_path / LOW_PORTS).exists()
    result = installs(tmp_path, "--no-low-ports")
    assert f"remove /{LOW_PORTS}" in result.output
    assert not (tmp_path / LOW_PORTS).exists()


def test_an_upgrade_updates_what_install_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_files, "_UNIT_PROGRAM", "[Service]")  # an older unit
    installs(tmp_path)
    monkeypatch.undo()
    result = installs(tmp_path)
    assert f"update /{UNIT}" in result.output
    assert "[Service]" in (tmp_path / UNIT).read_text()


def test_a_file_that_somebody_changed_survives_install_and_uninstall(tmp_path: Path) -> None:
    installs(tmp_path)
    (tmp_path / UNIT).write_text("[Service]\nUser=root\n")
    result = installs(tmp_path)
    assert f"left alone, as it was changed here: /{UNIT}" in result.output
    CliRunner().invoke(uninstall, ["--root", str(tmp_path)])
    assert files_below(tmp_path) == {str(UNIT): "[Service]\nUser=root\n"}


def test_uninstall_removes_all_that_install_wrote_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "etc/siemrelay/siemrelay.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("sources: {}\n")
    installs(tmp_path, "--low-ports", "--read-all-files")
    dry = CliRunner().invoke(uninstall, ["--root", str(tmp_path), "--dry-run"])
    assert (tmp_path / UNIT).exists()
    result = CliRunner().invoke(uninstall, ["--root", str(tmp_path)])
    assert result.output == dry.output
    assert files_below(tmp_path) == {"etc/siemrelay/siemrelay.yaml": "sources: {}\n"}
    again = CliRunner().invoke(uninstall, ["--root", str(tmp_path)])
    assert again.output.startswith("nothing to remove")


@other_users_run_it
def test_without_root_it_says_so_and_does_nothing() -> None:
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    else:
        command = []
    code = "from siemrelay.cli.commands import main; main()"
    done = subprocess.run(
        [*command, sys.executable, "-c", code, "uninstall"], capture_output=True, text=True,
        check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (77, "")
    assert "only root can do this" in done.stderr


@pytest.mark.parametrize("place", ["/home/ada/venv/bin/siemrelay", "/tmp/venv/bin/siemrelay"])
def test_a_program_that_the_service_could_not_see_is_refused_and_a_dry_run_shows_all_the_same(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = f"the service cannot run {place}: it sees nothing below /home"
    shown = CliRunner().invoke(install, ["--dry-run", "--program", place])
    assert shown.exit_code == 0, shown.output
    assert f"warning: this would be refused: {why}" in shown.stderr
    assert f"/{UNIT}\n" in shown.stdout
    monkeypatch.setattr("siemrelay.cli.setup.install.require", lambda root, dry_run: None)
    refused = CliRunner().invoke(install, ["--program", place])
    assert (refused.exit_code, refused.stdout) == (64, "")
    assert why in refused.stderr
    assert "/usr/bin/python3 -m venv --clear /opt/siemrelay" in refused.stderr


def about_ours(warnings: str) -> list[str]:
    """The lines of `systemd-analyze verify` that are not about another package's unit."""
    others = "/lib/systemd/", "/usr/lib/systemd/"
    return [line for line in warnings.splitlines() if not line.startswith(others)]


@pytest.mark.parametrize("name", system_files.DROP_INS)
def test_systemd_accepts_the_unit_with_each_drop_in(name: str, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    true = str(shutil.which("true"))
    installs(tmp_path, f"--{name.removesuffix('.conf')}", "--program", true)
    unit = tmp_path / UNIT
    command = [analyze, "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, about_ours(done.stdout + done.stderr)) == (0, [])


def test_systemd_makes_the_user_and_the_directories_of_the_service(tmp_path: Path) -> None:
    program("systemd-sysusers", "systemd")
    if os.geteuid():
        missing("only root can make users")
    installs(tmp_path)
    config = tmp_path / "etc/siemrelay/siemrelay.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("sources: {}\n")
    config.chmod(0o600)
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        subprocess.run([*command, f"--root={tmp_path}"], check=True, capture_output=True)
    groups = {
        fields[0]: (int(fields[2]), fields[3])
        for line in (tmp_path / "etc/group").read_text().splitlines()
        if (fields := line.split(":"))
    }
    assert groups["adm"][1] == "siemrelay"
    place, group = tmp_path / "etc/siemrelay", groups["siemrelay"][0]
    found = {
        path.name: (path.stat().st_uid, path.stat().st_gid, oct(path.stat().st_mode & 0o7777))
        for path in (place, *place.iterdir())
    }
    assert found == {
        "siemrelay": (0, group, "0o750"),
        "siemrelay.yaml": (0, group, "0o640"),
        "conf.d": (0, group, "0o750"),
        "tls": (0, group, "0o750"),
        "credentials": (0, 0, "0o700"),
    }


SHIPPED = {
    path.name: path.read_text()
    for path in (ROOT / "systemd").iterdir()
    if path.suffix in (".service", ".sysusers", ".tmpfiles", ".conf", ".yml", ".json")
}


def test_the_package_has_the_folder_systemd_itself_and_declares_every_file_of_it() -> None:
    held = Path(system_files.__file__).with_name("systemd")
    assert held.samefile(ROOT / "systemd")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["siemrelay.cli.setup"]
    declared = {path.name for glob in globs for path in held.parent.glob(glob)}
    assert declared == {*SHIPPED}


@pytest.mark.slow
def test_a_wheel_from_the_source_package_holds_the_products_and_the_folder_systemd(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "siemrelay", "systemd",
         "pyproject.toml", "README.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "-w", str(tmp_path), str(sdist)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    place = "siemrelay/cli/setup/systemd/"
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n).decode() for n in archive.namelist() if n.startswith(place)}
        shipped = {name for name in archive.namelist() if name.startswith("siemrelay/products/")}
        archive.extractall(tmp_path / "installed")
    assert shipped >= {f"siemrelay/products/{name}.yaml" for name in BUILT_IN}
    assert held == {place + name: text for name, text in SHIPPED.items()}
    subprocess.run(
        [sys.executable, "-m", "siemrelay", "install", "--root", str(tmp_path / "root"),
         "--program", "/opt/siemrelay/bin/siemrelay"],
        cwd=tmp_path / "installed", check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert (tmp_path / "root" / UNIT).read_text() == (
        ROOT / "systemd/siemrelay.service"
    ).read_text()
