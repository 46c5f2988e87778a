"""The unit files as they are shipped, by systemd's own judgement. Needs no root."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from syncd.cli import COMMANDS
from syncd.config import Delivery
from syncd.daemon import CLOSE_S
from syncd.errors import ConfigError, CredentialsError

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "systemd"
UNITS = ["syncd.service", "syncd@.service"]
SYSTEM_UNITS = Path("/usr/lib/systemd/system")

# What may differ between the unit for one account and the template for several.
PLACES = {
    "Description",
    "ExecStart",
    "LoadCredential",
    "StateDirectory",
    "RuntimeDirectory",
    "ReadWritePaths",
    "SyslogIdentifier",
}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt install systemd"
)


def settings(unit: str) -> dict[str, list[str]]:
    """Every setting of a unit file with its values, in order."""
    found = defaultdict(list)
    for line in (SHIPPED / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found[name].append(value)
    return found


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "SYSTEMD_PAGER": "", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system's root with the units in it, and with the programs that they start."""
    shutil.copytree(SYSTEM_UNITS, tmp_path / "usr/lib/systemd/system", symlinks=True)
    for program in ("opt/syncd/venv/bin/syncd", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True)
        shutil.copy("/bin/true", tmp_path / program)
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(SHIPPED / unit, folder)
    return tmp_path


def verified(root: Path, unit: str) -> subprocess.CompletedProcess[str]:
    return analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=yes", unit)


@needs_systemd
@pytest.mark.parametrize("unit", ["syncd.service", "syncd@acme.service"])
def test_a_unit_is_free_of_mistakes(root: Path, unit: str) -> None:
    judged = verified(root, unit)

    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("mistake", ["NoSuchKey=1", "WatchdogSec=soon", "ExecStartPre=/no/such"])
def test_a_mistake_in_it_would_be_found(root: Path, mistake: str) -> None:
    unit = root / "etc/systemd/system/syncd.service"
    unit.write_text(unit.read_text().replace("[Service]", f"[Service]\n{mistake}"))

    assert verified(root, "syncd.service").returncode != 0


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_exposed_by_1_3_at_most(unit: str, tmp_path: Path) -> None:
    file = shutil.copy(SHIPPED / unit, tmp_path / unit.replace("@", "@acme"))

    judged = analyze("security", "--offline=true", "--threshold=13", file)

    assert judged.returncode == 0, judged.stdout


@needs_systemd
@pytest.mark.parametrize("drop_in", ["address-filter.conf", "rows.conf"])
def test_a_drop_in_is_free_of_mistakes_and_exposes_no_more(root: Path, drop_in: str) -> None:
    folder = root / "etc/systemd/system/syncd.service.d"
    folder.mkdir()
    shutil.copy(SHIPPED / drop_in, folder)

    judged = verified(root, "syncd.service")
    exposed = analyze("security", "--offline=true", "--threshold=13", folder.with_suffix(""))

    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")
    assert exposed.returncode == 0, exposed.stdout


def test_the_template_differs_in_places_and_names_only() -> None:
    one, several = (settings(unit) for unit in UNITS)

    differing = {name for name in one | several if one[name] != several[name]}

    assert differing == PLACES
    assert all("%i" in value for name in PLACES for value in several[name])


@pytest.mark.parametrize("unit", UNITS)
def test_an_answer_has_its_time_within_a_stop(unit: str) -> None:
    (allowed,) = settings(unit)["TimeoutStopSec"]

    assert float(allowed.removesuffix("s")) > Delivery().drain_s + CLOSE_S


@pytest.mark.parametrize("unit", UNITS)
def test_what_only_somebody_can_mend_is_not_tried_again(unit: str) -> None:
    (codes,) = settings(unit)["RestartPreventExitStatus"]

    assert set(codes.split()) == {"2", str(ConfigError.exit_code), str(CredentialsError.exit_code)}


@pytest.mark.parametrize("unit", UNITS)
def test_no_core_is_left_that_would_hold_the_token(unit: str) -> None:
    assert settings(unit)["LimitCORE"] == ["0"]


def test_the_man_page_names_every_command() -> None:
    page = (SHIPPED / "syncd.8").read_text()

    named = set(re.findall(r"^\.B(?:R)? syncd ([a-z]+)", page, flags=re.MULTILINE))

    assert named == set(COMMANDS)


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man: apt install man-db")
def test_the_man_page_is_free_of_mistakes() -> None:
    shown = subprocess.run(
        ["man", "--warnings", "-l", "-Tutf8", SHIPPED / "syncd.8"],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANWIDTH": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )

    assert shown.stderr == ""
    assert "EXIT STATUS" in re.sub(".\b", "", shown.stdout)


def test_the_scripts_are_well_formed() -> None:
    for shell, script in (
        ("sh", SHIPPED / "setup.sh"),
        ("bash", ROOT / "tests/systemd/booted/boot.sh"),
    ):
        subprocess.run([shell, "-n", script], check=True, timeout=10)
    assert os.access(SHIPPED / "setup.sh", os.X_OK)
