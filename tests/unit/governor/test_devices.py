"""Devices: what they read, from made-up kernels, a played NVML trace, and the real machine."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.nvml_trace import TWO_H100, NvmlTrace
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.core.domain import Footprint
from ullage_runtime.engines.procfs import MemoryShare, memory_share
from ullage_runtime.governor.control_group import cpu_throttled_seconds, memory_stall
from ullage_runtime.governor.detection import detected_devices
from ullage_runtime.governor.devices import DeviceError, OffLoop, processes_of
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.governor.nvml import gpus
from ullage_runtime.governor.refusals import MemoryRefusedError
from ullage_runtime.governor.service import Governor

GIB = 1 << 30
MIB = 1 << 20


@pytest.fixture
def trace() -> NvmlTrace:
    trace = NvmlTrace(TWO_H100)
    trace.pids[4242] = os.getpid()
    return trace


# --- NVML ---------------------------------------------------------------------------------------


def test_every_gpu_is_a_device_and_a_cut_one_is_its_slices(trace: NvmlTrace) -> None:
    found = [(d.id, d.kind, d.name, d.total()) for d in gpus(trace)]
    assert found == [
        ("gpu0", DeviceKind.GPU, "NVIDIA H100 80GB HBM3", 85520809984),
        ("gpu1.mig0", DeviceKind.GPU, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10468982784),
        ("gpu1.mig3", DeviceKind.GPU, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10468982784),
    ]


async def test_a_gpu_says_what_all_and_what_our_processes_take(trace: NvmlTrace) -> None:
    board, sliced, _ = gpus(trace)
    idle = await board.read()
    assert (idle.used, idle.own, idle.throttling) == (607 * MIB, None, ())
    trace.moment = 1
    busy = await board.read()
    assert (busy.used, busy.own) == (38 * GIB, 6 * GIB)
    assert (await sliced.read()).own == 9 * GIB


async def test_of_several_devices_each_has_an_account_and_the_tightest_is_taken(
    trace: NvmlTrace,
) -> None:
    governor = Governor(list(gpus(trace)))
    large = governor.reserve("large", Footprint(weights=40 * GIB))
    small = governor.reserve("small", Footprint(weights=8 * GIB))
    assert (large.gpus, small.gpus) == ("0", "MIG-1-0")
    trace.moment = 1
    await governor.sample(0)
    told = {d.id: (d.ledger_bytes, d.used_bytes, d.level) for d in governor.report()}
    assert told == {
        "gpu0": (40 * GIB, 38 * GIB, MemoryLevel.LOW),
        "gpu1.mig0": (8 * GIB, 9 * GIB, MemoryLevel.CRITICAL),
        "gpu1.mig3": (0, told["gpu1.mig3"][1], MemoryLevel.LOW),
    }
    assert governor.level is MemoryLevel.CRITICAL, "that of the fullest"
    assert governor.level_of(large.devices) is MemoryLevel.LOW
    other = governor.reserve("other", Footprint(weights=8 * GIB))
    assert other.devices == ("gpu1.mig3",), "of its twin the driver says that it is full"
    with pytest.raises(MemoryRefusedError, match=r"of the gpu0 budget of 71\.7 GiB") as refused:
        governor.reserve("third", Footprint(weights=60 * GIB))
    assert refused.value.lacking.keys() == {"gpu0"}, "the others could never hold it"
    for reservation in (large, small, other):
        reservation.release()
    assert all(device.ledger_bytes == 0 for device in governor.report())


async def test_a_divided_model_is_promised_memory_of_each_device(trace: NvmlTrace) -> None:
    governor = Governor(list(gpus(trace)))
    reservation = governor.reserve("chat", Footprint(weights=5 * GIB, among=2))
    assert reservation.devices == ("gpu1.mig0", "gpu1.mig3")
    assert reservation.total == 10 * GIB
    wide = governor.reserve("wide", Footprint(weights=3 * GIB, among=3))
    told = [d.ledger_bytes // GIB for d in governor.report()]
    assert told == [3, 8, 8]
    with pytest.raises(MemoryRefusedError, match="among 4 devices"):
        governor.reserve("wider", Footprint(weights=1, among=4))
    reservation.release()
    wide.release()
    assert all(device.ledger_bytes == 0 for device in governor.report())


def test_of_what_the_environment_hides_nothing_is_promised(trace: NvmlTrace) -> None:
    def seen(visible: str) -> list[str]:
        return [device.id for device in gpus(trace, visible)]

    assert seen("0") == seen("GPU-0") == ["gpu0"]
    assert seen("1") == ["gpu1.mig0", "gpu1.mig3"]
    assert seen("MIG-1-3, 0") == ["gpu0", "gpu1.mig3"]
    assert seen("") == []


async def test_heat_and_power_are_told_and_those_of_a_slice_are_its_boards(
    trace: NvmlTrace,
) -> None:
    board, sliced, _ = gpus(trace)
    trace.moment = 2
    assert (await board.read()).throttling == ("thermal", "power_cap")
    assert (await sliced.read()).throttling == ("hardware", "hardware_thermal")


async def test_a_gpu_that_fell_off_the_bus_is_an_error_and_comes_back(trace: NvmlTrace) -> None:
    *_, last = gpus(trace)
    trace.moment = 2
    with pytest.raises(DeviceError, match="the driver says: GPU is lost"):
        await last.read()
    trace.moment = 3
    assert (await last.read()).used == 13 * MIB


async def test_a_driver_that_knows_no_processes_still_says_what_is_used(trace: NvmlTrace) -> None:
    _, sliced, _ = gpus(trace)
    trace.moment = 3
    reading = await sliced.read()
    assert (reading.used, reading.own, reading.throttling) == (9 * GIB, None, ())


async def test_what_a_process_takes_is_the_drivers_word_or_else_the_estimate(
    trace: NvmlTrace,
) -> None:
    board, sliced, _ = gpus(trace)
    trace.moment = 1
    assert await board.taken_by(os.getpid(), 1, 5 * GIB) == 6 * GIB
    assert await board.taken_by(12345, 1, 5 * GIB) == 5 * GIB
    trace.moment = 2
    assert await sliced.taken_by(os.getpid(), 1, 5 * GIB) == 5 * GIB, "in a container: no bytes"


async def test_processes_that_an_engine_started_for_its_parts_count_as_the_engine(
    trace: NvmlTrace,
) -> None:
    board, *_ = gpus(trace)
    part = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        trace.pids[977], trace.moment = part.pid, 1
        assert await board.taken_by(os.getpid(), 1, 5 * GIB) == 37 * GIB
        assert await board.taken_by(part.pid, 1, 5 * GIB) == 31 * GIB
    finally:
        part.kill()
        await part.wait()


# --- The pod's memory ---------------------------------------------------------------------------


class Kernel:
    """A made-up /sys/fs/cgroup and /proc in which this process lives."""

    def __init__(self, folder: Path) -> None:
        self.root, self.proc = folder / "cgroup", folder / "proc"

    def write(self, path: str, text: str) -> None:
        file = self.root.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def takes(self, anon: int, file: int, shmem: int) -> None:
        self.write(
            f"proc/{os.getpid()}/smaps_rollup",
            "5583-7ffd ---p 00000000 00:00 0    [rollup]\n"
            f"Rss:  9999 kB\nPss:  9999 kB\nPss_Anon: {anon} kB\nPss_File: {file} kB\n"
            f"Pss_Shmem: {shmem} kB\n",
        )


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


async def test_in_a_version_2_group_what_our_processes_take_counts_against_the_limit(
    kernel: Kernel,
) -> None:
    kernel.write("proc/self/cgroup", "0::/\n")
    kernel.write("cgroup/memory.max", f"{64 * MIB}\n")
    kernel.write("cgroup/memory.current", f"{63 * MIB}\n")
    kernel.write("cgroup/memory.pressure", "some avg10=12.50 avg60=0.00 total=1\nfull avg10=0.0\n")
    kernel.takes(anon=10 * 1024, file=20 * 1024, shmem=2 * 1024)
    reading = await HostMemory(kernel.root, kernel.proc).read()
    assert (reading.total, reading.used, reading.own) == (64 * MIB, 32 * MIB, 32 * MIB)
    assert reading.stalled == 0.125


async def test_in_a_version_1_group_too(kernel: Kernel) -> None:
    kernel.write("proc/self/cgroup", "4:cpu,cpuacct:/pod\n3:memory:/pod\n")
    kernel.write("cgroup/memory/pod/memory.limit_in_bytes", f"{64 * MIB}\n")
    kernel.takes(anon=10 * 1024, file=20 * 1024, shmem=0)
    reading = await HostMemory(kernel.root, kernel.proc).read()
    assert (reading.total, reading.used) == (64 * MIB, 30 * MIB)
    assert reading.stalled is None, "the kernel has no PSI"


async def test_without_a_limit_neighbours_count_and_mapped_weights_on_top(kernel: Kernel) -> None:
    kernel.write("proc/self/cgroup", "0::/\n")
    kernel.takes(anon=0, file=0, shmem=0)
    host = HostMemory(kernel.root, kernel.proc)
    alone = await host.read()
    kernel.takes(anon=0, file=8 * GIB // 1024, shmem=0)
    mapped = await host.read()
    assert alone.used > 0
    assert mapped.used - alone.used > 4 * GIB


async def test_use_beyond_what_there_is_is_all_there_is(kernel: Kernel) -> None:
    kernel.write("proc/self/cgroup", "0::/\n")
    kernel.write("cgroup/memory.max", f"{16 * MIB}\n")
    kernel.takes(anon=99 * 1024, file=0, shmem=0)
    assert (await HostMemory(kernel.root, kernel.proc).read()).used == 16 * MIB


@pytest.mark.parametrize(
    ("group", "stat"),
    [
        ("0::/\n", "cgroup/cpu.stat|nr_throttled 3\nthrottled_usec {}000000\n"),
        ("4:cpu:/\n", "cgroup/cpu/cpu.stat|nr_throttled 3\nthrottled_time {}000000000\n"),
    ],
)
async def test_being_held_back_by_the_cpu_quota_is_told(
    kernel: Kernel, group: str, stat: str
) -> None:
    path, text = stat.split("|")
    kernel.write("proc/self/cgroup", group)
    kernel.write(path, text.format(7))
    host = HostMemory(kernel.root, kernel.proc)
    assert cpu_throttled_seconds(kernel.root, kernel.proc) == 7
    assert (await host.read()).throttling == ()
    kernel.write(path, text.format(8))
    assert (await host.read()).throttling == ("cpu_quota",)
    assert (await host.read()).throttling == ()


def test_waiting_for_memory_is_the_groups_or_else_the_machines(kernel: Kernel) -> None:
    kernel.write("proc/self/cgroup", "0::/pod\n")
    assert memory_stall(kernel.root, kernel.proc) is None
    kernel.write("proc/pressure/memory", "some avg10=5.00 avg60=0.00 avg300=0.00 total=9\n")
    assert memory_stall(kernel.root, kernel.proc) == 0.05
    kernel.write("cgroup/pod/memory.pressure", "some avg10=50.00 avg60=0.00 total=9\n")
    assert memory_stall(kernel.root, kernel.proc) == 0.5


def test_kernels_without_the_split_have_the_sum(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("5583-7ffd [rollup]\nRss:  9 kB\nPss:  5 kB\n")
    assert memory_share(7, tmp_path) == MemoryShare(private=5 * 1024)


# --- The real machine ---------------------------------------------------------------------------


async def test_the_real_memory_is_plausible() -> None:
    reading = await HostMemory().read()
    assert reading.total > 100 * MIB
    assert reading.own is not None
    assert 10 * MIB < reading.own <= reading.used <= reading.total


async def test_every_device_of_this_machine_can_be_read() -> None:
    *_, host = devices = detected_devices()
    assert host.kind is DeviceKind.HOST
    for device in devices:
        assert (await device.read()).total == device.total()
    assert os.getpid() in processes_of(os.getpid())


# --- Deadlines ----------------------------------------------------------------------------------


async def test_a_device_that_does_not_answer_is_an_error_and_holds_one_thread_at_most() -> None:
    answers, begun = threading.Event(), []
    off_loop = OffLoop("gpu7", seconds=0.05)

    def hang() -> int:
        begun.append(1)
        answers.wait(20)
        return 1

    for _ in range(3):
        with pytest.raises(DeviceError, match="gpu7 did not answer within"):
            await off_loop(hang)
    assert len(begun) == 1
    answers.set()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert await off_loop(lambda: 2) == 2
            break
        except DeviceError:
            assert time.monotonic() < deadline


async def test_the_loop_goes_on_while_a_device_is_read() -> None:
    off_loop, answers = OffLoop("gpu7"), threading.Event()
    reading = asyncio.create_task(off_loop(lambda: answers.wait(20)))
    await asyncio.sleep(0)
    answers.set()
    assert await reading


async def test_what_cannot_be_read_is_an_error_with_its_cause() -> None:
    def gone() -> int:
        raise FileNotFoundError("/proc/7/smaps_rollup")

    with pytest.raises(DeviceError, match="smaps_rollup"):
        await OffLoop("memory")(gone)
