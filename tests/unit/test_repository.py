"""The files around the code: dependencies, versions, the change log."""

import re
import tomllib
from pathlib import Path

import syncd

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == syncd.__version__
    assert f"\n## [{syncd.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_its_reason_beside_it() -> None:
    lines = PYPROJECT.partition("\ndependencies = [\n")[2].partition("\n]\n")[0].splitlines()

    assert len(lines) == len(PROJECT["dependencies"])
    for line in lines:
        assert re.fullmatch(r'    "[^"]+", +# \S.*', line), line


def test_every_dependency_has_an_honest_lower_bound() -> None:
    for requirement in requirements():
        assert re.search(r">=\d", requirement), requirement


def test_the_constraints_are_exact_versions_and_nothing_else() -> None:
    """No index, no address, no option: they hold wherever pip gets its packages from."""
    for line in CONSTRAINTS:
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), line
        assert "://" not in line


def test_the_constraints_cover_every_dependency() -> None:
    pinned = {normal(line.partition("==")[0]) for line in CONSTRAINTS if "==" in line}

    wanted = {normal(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements()}

    assert wanted - pinned == set()


def test_the_constraints_are_sorted_and_name_each_package_once() -> None:
    names = [normal(line.partition("==")[0]) for line in CONSTRAINTS if "==" in line]

    assert names == sorted(set(names))


def test_the_makefile_explains_each_of_its_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)

    explained = re.findall(r"^([a-z-]+):.*## \S", makefile, flags=re.MULTILINE)

    assert sorted(explained) == sorted(phony.split())
    assert {"demo", "test", "check", "bench"} <= set(explained)


def test_the_continuous_integration_script_can_be_run() -> None:
    script = ROOT / ".ci/run"

    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/bin/bash\n")
