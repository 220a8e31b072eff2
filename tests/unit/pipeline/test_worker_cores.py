"""`workers: auto` starts no more than the CPU set and the quota of the control groups allow."""

from __future__ import annotations

from typing import Literal

import pytest

from siemrelay.pipeline.workers.cores import cores, most_workers, usable_cores

CGROUP = "/proc/self/cgroup"
V1, V2 = "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {
        f"{V1}{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{V1}{folder}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("allowed", "files", "usable"),
    [
        pytest.param(8, {}, 8, id="no control groups"),
        pytest.param(3, {CGROUP: "0::/\n"}, 3, id="no limit at the top of a machine"),
        pytest.param(64, {CGROUP: "0::/\n", f"{V2}/cpu.max": "100000 100000\n"}, 1,
                     id="a container with one CPU"),
        pytest.param(64, {CGROUP: "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, 64,
                     id="a container without a limit"),
        pytest.param(8, {CGROUP: "0::/a/b.service\n", f"{V2}/a/b.service/cpu.max": "250000 100000"},
                     2, id="a unit with CPUQuota=250%: whole cores"),
        pytest.param(8, {CGROUP: "0::/a/b\n", f"{V2}/a/b/cpu.max": "max 100000",
                         f"{V2}/a/cpu.max": "300000 100000"}, 3, id="the slice around it"),
        pytest.param(8, {CGROUP: "0::/a/b\n", f"{V2}/a/b/cpu.max": "600000 100000",
                         f"{V2}/a/cpu.max": "90000 50000"}, 1, id="the smallest of both"),
        pytest.param(8, {CGROUP: "0::/\n", f"{V2}/cpu.max": "20000 100000"}, 1,
                     id="a fifth of a core is one core"),
        pytest.param(2, {CGROUP: "0::/\n", f"{V2}/cpu.max": "400000 100000"}, 2,
                     id="a CPU set that is smaller than the quota"),
        pytest.param(8, {CGROUP: "4:memory:/x\n3:cpu,cpuacct:/x\n", **v1("/x", 200_000)}, 2,
                     id="version 1"),
        pytest.param(8, {CGROUP: "3:cpuacct,cpu:/docker/1\n", **v1("", 400_000, 200_000)}, 2,
                     id="version 1, in a container: its group is at the top"),
        pytest.param(8, {CGROUP: "3:cpu:/x\n", **v1("/x", -1)}, 8, id="version 1, no limit"),
        pytest.param(8, {CGROUP: "3:cpu:/x\n0::/y\n", **v1("/x", 300_000)}, 3, id="both versions"),
        pytest.param(8, {CGROUP: "2:cpuset:/x\n", **v1("/x", 100_000)}, 8,
                     id="cpuset is another controller"),
        pytest.param(8, {CGROUP: "0::/a:b\n", f"{V2}/a:b/cpu.max": "100000 100000"}, 1,
                     id="a name with a colon"),
        pytest.param(8, {CGROUP: "0::/a\n", f"{V2}/a/cpu.max": "what 100000"}, 8,
                     id="a file of which nobody knows the meaning"),
    ],
)  # fmt: skip
def test_cores_are_those_of_the_cpu_set_and_of_the_quotas(
    allowed: int, files: dict[str, str], usable: int
) -> None:
    assert cores(allowed, lambda path: files.get(path, "")) == usable


def test_the_cores_of_this_machine_are_found() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("workers", "usable", "most"),
    [("auto", 1, 0), ("auto", 2, 1), ("auto", 64, 4), (0, 8, 0), (6, 1, 6)],
)
def test_one_core_is_left_to_the_relay(
    workers: Literal["auto"] | int, usable: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siemrelay.pipeline.workers.cores.usable_cores", lambda: usable)
    assert most_workers(workers) == most
