"""What control groups of both versions allow."""

from pathlib import Path

import pytest

from ullage_runtime.engines.limits import cpu_quota, memory_limit
from ullage_runtime.engines.procfs import proportional_set_size

GIB = 1 << 30


class Tree:
    """A made-up /sys/fs/cgroup and /proc."""

    def __init__(self, folder: Path) -> None:
        self.root, self.proc = folder / "cgroup", folder / "proc"
        (self.proc / "self").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def belongs(self, text: str) -> None:
        (self.proc / "self" / "cgroup").write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_2_in_a_container(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    tree.belongs("0::/\n")
    tree.write("cpu.max", "250000 100000\n")
    tree.write("memory.max", f"{2 * GIB}\n")
    tree.write("memory.current", "12345\n")
    assert cpu_quota(tree.root, tree.proc) == 2
    assert memory_limit(tree.root, tree.proc) == 2 * GIB


def test_the_least_of_nested_groups_counts(tree: Tree) -> None:
    tree.belongs("0::/pod/container\n")
    tree.write("pod/memory.max", f"{GIB}\n")
    tree.write("pod/container/memory.max", "max\n")
    tree.write("pod/container/memory.current", "7\n")
    assert memory_limit(tree.root, tree.proc) == GIB


def test_version_1(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    tree.belongs("4:cpu,cpuacct:/a\n3:memory:/a\n")
    tree.write("cpu,cpuacct/a/cpu.cfs_quota_us", "400000\n")
    tree.write("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    tree.write("memory/a/memory.limit_in_bytes", f"{3 * GIB}\n")
    tree.write("memory/a/memory.usage_in_bytes", "99\n")
    assert cpu_quota(tree.root, tree.proc) == 4
    assert memory_limit(tree.root, tree.proc) == 3 * GIB


def test_no_limit_is_none_and_the_allowed_cpus_count(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    tree.belongs("4:cpu,cpuacct:/\n3:memory:/\n")
    tree.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    tree.write("memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert cpu_quota(tree.root, tree.proc) == 3
    assert memory_limit(tree.root, tree.proc) is None


def test_half_a_cpu_is_still_one_thread(tree: Tree) -> None:
    tree.belongs("0::/\n")
    tree.write("cpu.max", "50000 100000\n")
    assert cpu_quota(tree.root, tree.proc) == 1


def test_a_process_size_is_its_proportional_share_with_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text(
        "5583-7ffd ---p 00000000 00:00 0    [rollup]\n"
        "Rss:  900 kB\nPss:  500 kB\nPss_Anon: 100 kB\nPss_File: 350 kB\nPss_Shmem: 50 kB\n"
    )
    assert proportional_set_size(7, tmp_path) == 500 * 1024
    assert proportional_set_size(8, tmp_path) == 0
