"""vLLM itself, in this process: started for one model, moved one step at a time.

vLLM's servers run its core in a second process, which they talk to over sockets. Here the worker
is that process already: the core runs in it, so that there is one process to measure, to kill and
to wait for, and the libraries are loaded once (ADR 30).
"""

import contextlib
import logging
import os
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import EngineSpec, EngineStats, Footprint
from ullage_runtime.core.errors import LoadError, invalid_model
from ullage_runtime.core.scheduling.steps import Counters
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.vllm.files import ModelFiles, adapter_rank
from ullage_runtime.engines.vllm.needs import BLOCK, batch_tokens, context_length, kv_bytes
from ullage_runtime.engines.worker.backend import LogSink

_RANKS: Final = (8, 16, 32, 64, 128, 256, 512)
"""Ranks that vLLM has slots for."""
_LEVELS: Final = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning"}
_SHOWN: Final = 600
_MOST: Final = 0.98
"""Share of a device beyond which vLLM is not told that it may take it."""


def prepare_process(spec: EngineSpec) -> None:
    """Set what vLLM and PyTorch read of the environment when they are imported."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        VLLM_CONFIGURE_LOGGING="0",
        # Threads of several models would be bound to the same CPUs.
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(spec.threads or cpu_quota()),
        TOKENIZERS_PARALLELISM="false",
    )
    if not on_gpu():
        # There is no compiler in the image, and compiling takes longer than it saves.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"


def on_gpu() -> bool:
    """Whether an NVIDIA driver is here; asked before PyTorch is imported."""
    return os.path.exists("/proc/driver/nvidia/version")  # noqa: PTH110 - a flag of the kernel


def start(spec: EngineSpec, files: ModelFiles, needs: Footprint, log: LogSink) -> "Core":
    """Start vLLM with a model; raises LoadError."""
    prepare_process(spec)
    _pass_on_logs(log)
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(**_arguments(spec, files, needs))
        meter = Meter(context_length(spec, files))
        with _scratch():
            engine = LLMEngine.from_engine_args(arguments, stat_loggers=[meter.attached])
    except LoadError:
        raise
    except (ValueError, TypeError) as error:  # pydantic's among them: settings, architectures
        _say_why(error, log)
        raise invalid_model(f"vLLM cannot serve the model: {_in_short(error)}") from error
    except Exception as error:
        _say_why(error, log)
        raise LoadError(
            Reason.LOAD_FAILED, f"vLLM did not start: {_in_short(error)}", final=False
        ) from error
    return Core(engine, meter, spec)


def _arguments(spec: EngineSpec, files: ModelFiles, needs: Footprint) -> dict[str, Any]:
    """Return what vLLM is told; everything it would choose by the device's size is said."""
    path = str(files.folder)
    arguments: dict[str, Any] = {
        "model": path,
        "tokenizer": path,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": files.dtype,
        "seed": 0,
        "max_model_len": context_length(spec, files),
        "max_num_seqs": spec.parallel,
        "max_num_batched_tokens": batch_tokens(spec, files),
        "kv_cache_memory_bytes": kv_bytes(spec, files) // spec.tensor_parallel,
        "tensor_parallel_size": spec.tensor_parallel,
        "scheduling_policy": "priority",
        "disable_log_stats": False,
        "enforce_eager": not on_gpu(),
    }
    if on_gpu():
        arguments["gpu_memory_utilization"] = _share_of_device(needs, spec.tensor_parallel)
    else:
        arguments["block_size"] = BLOCK
    if spec.adapters:
        rank = max(adapter_rank(adapter) for adapter in spec.adapters)
        arguments |= {
            "enable_lora": True,
            "max_loras": len(spec.adapters),
            "max_lora_rank": next(each for each in _RANKS if each >= rank),
        }
    return arguments


def _share_of_device(needs: Footprint, wanted: int) -> float:
    """Return the share of a GPU that was reserved; raises LoadError for too few GPUs."""
    import torch

    there = torch.cuda.device_count()
    if there < wanted:
        raise invalid_model(f"engine.tensorParallel is {wanted}; this pod has {there} GPUs")
    total: int = torch.cuda.get_device_properties(0).total_memory
    return min(_MOST, needs.total / total)


class Core:
    """vLLM's engine with one model; owned by one thread."""

    def __init__(self, engine: Any, meter: "Meter", spec: EngineSpec) -> None:
        from vllm.lora.request import LoRARequest

        self._engine = engine
        self._meter = meter
        self._tasks = engine.get_supported_tasks()
        self._adapters = {
            adapter.name: LoRARequest(adapter.name, number, adapter.path)
            for number, adapter in enumerate(spec.adapters, start=1)
        }

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._engine.has_unfinished_requests())

    @property
    def stats(self) -> EngineStats:
        """What it does, as of its last step; any thread may ask."""
        stats = self._meter.stats
        if self.busy:
            return stats
        return replace(
            stats, requests_running=0, requests_waiting=0, kv_cells_running=0, batch_width=0
        )

    @property
    def device(self) -> str:
        """What computes."""
        import vllm

        if not on_gpu():
            return f"CPU (vLLM {vllm.__version__})"
        import torch

        return str(torch.cuda.get_device_name(0))

    def has_adapter(self, name: str) -> bool:
        """Whether it knows an adapter of that name."""
        return name in self._adapters

    def checked(
        self,
        request_id: str,
        tokens: list[int],
        parameters: Any,
        *,
        adapter: str = "",
        tenant: str = "",
        place: int = 0,
    ) -> Any:
        """Return a request as `add` takes it; raises ValueError for what vLLM refuses.

        Those with a lower `place` go first. Grammars are read here, which can take long; any thread
        may call it.
        """
        from vllm.exceptions import VLLMClientError

        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": tokens}
        if tenant:  # what is cached of one tenant's prompts is no other's
            prompt["cache_salt"] = tenant
        try:
            return self._engine.input_processor.process_inputs(
                request_id,
                prompt,
                parameters,
                supported_tasks=self._tasks,
                lora_request=self._adapters.get(adapter),
                priority=place,
            )
        except VLLMClientError as error:
            raise ValueError(str(error)) from error

    def add(self, request: Any) -> None:
        """Begin a generation."""
        self._engine.add_request(request.request_id, request, request.params)

    def step(self) -> list[Any]:
        """Return the RequestOutputs of one step."""
        outputs = list(self._engine.step())
        if outputs:
            self._meter.stepped(len(outputs))
        return outputs

    def abort(self, request_id: str) -> None:
        """End a generation, of which nothing more is heard."""
        self._engine.abort_request([request_id])


class Meter:
    """What vLLM tells of itself at every step, in the counts that all engines have."""

    def __init__(self, cells: int) -> None:
        self.stats = EngineStats(resident_bytes=0, kv_cells=cells)
        self._counters = Counters()

    def attached(self, config: Any, engine_index: int = 0) -> "Meter":
        """Return itself, as vLLM wants to make its loggers."""
        del config, engine_index
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, *_others: Any, **_more: Any
    ) -> None:
        """Take note of a step."""
        stats = self.stats
        if scheduler_stats is not None:
            cells = stats.kv_cells
            used = round(scheduler_stats.kv_cache_usage * cells)
            stats = replace(
                stats,
                requests_running=scheduler_stats.num_running_reqs,
                requests_waiting=scheduler_stats.num_waiting_reqs,
                kv_cells_used=used,
                kv_cells_running=used,
                prefix_tokens=stats.prefix_tokens + scheduler_stats.prefix_cache_stats.hits,
            )
        if iteration_stats is not None:
            stats = replace(
                stats,
                preemptions=stats.preemptions + iteration_stats.num_preempted_reqs,
                prompt_tokens=stats.prompt_tokens + iteration_stats.prompt_token_stats.computed,
                generated_tokens=stats.generated_tokens + iteration_stats.num_generation_tokens,
            )
        self.stats = stats

    def stepped(self, width: int) -> None:
        """Take note of a step that moved so many generations."""
        counters = self._counters
        counters.count(width)
        self.stats = replace(
            self.stats,
            batch_width=counters.width,
            batch_width_max=counters.widest,
            steps=counters.steps,
            step_widths=counters.widths,
            steps_by_width=tuple(counters.by_width),
        )

    def log(self) -> None:
        """Do nothing: it is asked instead."""

    def log_engine_initialized(self) -> None:
        """Do nothing, likewise."""

    def record_sleep_state(self, *_state: Any) -> None:
        """Do nothing: it never sleeps."""


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Have what vLLM leaves in the temporary folder while it starts removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ullage-vllm-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


class _Forwarding(logging.Handler):
    def __init__(self, log: LogSink) -> None:
        super().__init__()
        self._sink = log

    def emit(self, record: logging.LogRecord) -> None:
        self._sink(_LEVELS.get(record.levelname, "error"), record.getMessage()[:_SHOWN])


def _pass_on_logs(log: LogSink) -> None:
    logger = logging.getLogger("vllm")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Forwarding(log))


def _in_short(error: BaseException) -> str:
    """Return the sentence that matters: pydantic puts it on the second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("For further information")]
    return f"{type(error).__name__}: {' '.join(lines)}"[:_SHOWN]


def _say_why(error: BaseException, log: LogSink) -> None:
    """Have the end of the traceback among the worker's last words."""
    for line in "".join(traceback.format_exception(error)).splitlines()[-12:]:
        if line.strip():
            log("error", line.strip())
