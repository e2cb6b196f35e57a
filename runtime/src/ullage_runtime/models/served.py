"""ServedModel: one model of the pool, and the task that keeps it as the spec wants it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from ullage_api.conditions import Reason
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.core.backoff import HEALTHY_SECONDS, Crashes
from ullage_runtime.core.decisions import Rule
from ullage_runtime.core.errors import EngineFailed, LoadError, ServingError
from ullage_runtime.core.lifecycle import BringUp, Park, Rest, Retire, Situation, next_step
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.models.admission import Admission
from ullage_runtime.models.failures import Failures
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.journal import Failure
from ullage_runtime.models.live import Live
from ullage_runtime.models.progress import Shown, is_worth_telling
from ullage_runtime.models.refusing import no_adapter, refusal_for
from ullage_runtime.models.reporting import reported
from ullage_runtime.models.standby import Standby
from ullage_runtime.models.stay import Stay
from ullage_runtime.models.surroundings import Surroundings
from ullage_runtime.models.swapping import ROOM_SECONDS, Swapping
from ullage_runtime.models.wish import Wish

_log = structlog.get_logger(__name__)


class ServedModel:
    """One model on this pod: what is wanted of it, what answers, and how the one becomes the other.

    One task owns every transition; requests only ever see the admission's current generation,
    which changes by one assignment.
    """

    def __init__(
        self,
        desired: DesiredModel,
        settings: RuntimeSettings,
        *,
        is_here: bool,
        waits: bool,
        around: Surroundings,
        on_change: Callable[[], None],
    ) -> None:
        self.name = desired.name
        self._wish = Wish(desired, settings, is_here, waits)
        self._around = around
        self._on_change = on_change
        self._shown = Shown(on_change)
        self._failures = Failures()
        self._learn(desired)
        self._crashes = Crashes()
        self._restart_at = 0.0
        self._wake = asyncio.Event()
        self.admission = Admission(desired.name, self._no_adapter, around.caches.embeddings)
        self.admission.limits = desired.serving
        self._generations = Generations(
            desired.name, self.admission, on_death=self._on_death, on_change=on_change
        )
        self._stay = Stay(
            desired.name,
            desired.residency,
            self.admission,
            self._generations,
            around=around,
            wake=self._wake.set,
        )
        self._swapping = Swapping(
            self._wish,
            self._generations,
            self._stay,
            self._shown,
            around=around,
            say=self._say_busy,
            has_waiting=lambda: self.admission.waiting > 0,
            on_short=self._note_short,
        )
        around.metrics.leases.labels(self.name).set_function(lambda: self.admission.running)
        self._standby = Standby(desired.name, self._generations, around)
        around.room.enter(self._stay)
        around.room.enter(self._standby)
        self._apply_refusal()
        self._task = asyncio.create_task(self._run(), name=f"model-{desired.name}")

    @property
    def desired(self) -> DesiredModel:
        """What is wanted of it."""
        return self._wish.desired

    @property
    def answered(self) -> tuple[DesiredRevision, ...]:
        """What has answered for good since the process began, the latest first."""
        return self._swapping.steps.answered

    # What the pool does with it ------------------------------------------------------------------

    def update(
        self, desired: DesiredModel, settings: RuntimeSettings, *, is_here: bool, waits: bool
    ) -> None:
        """Take the newest wish; limits act at once, the rest as the task gets to it."""
        before, asked, waited = self.desired, self._wish.asks, self._wish.waits
        self._wish.desired, self._wish.settings, self._wish.is_here = desired, settings, is_here
        self._wish.waits = waits
        if self._wish.asks != asked or (before.failure and not desired.failure):
            self._failures = Failures()
        self._learn(desired)
        self._stay.is_wanted = self._wish.is_wanted
        if not self._wish.is_wanted or not desired.residency.keeps_warm:
            self._around.warm.forget(self.name)
        if before.target != desired.target:
            self._shown.target, self._shown.weights_ready = None, False
        if not waits and (waited or before.target != desired.target):
            self._stay.come_back()
        self._stay.change(desired.residency)
        self.admission.limits = desired.serving
        self._apply_refusal()
        self._wake.set()

    def _learn(self, desired: DesiredModel) -> None:
        """Take up what other pods have found not to be worth trying."""
        if desired.failure is not None:
            self._failures.learn(desired.target, desired.failure)

    async def remove(self, *, forget: bool = False) -> None:
        """Answer no more requests, drain, unload and end; `forget` also what was committed."""
        self._wish.is_removed = True
        self._around.room.leave(self._stay)
        self._around.room.leave(self._standby)
        self._apply_refusal()
        self._wake.set()
        await asyncio.wait({self._task})
        await self._generations.wait_gone()
        self._around.warm.forget(self.name)
        if forget:
            await self._swapping.steps.forget()

    def hurry(self) -> None:
        """Stop waiting for leases: whatever drains is unloaded now, and its requests fail."""
        self._generations.hurry()

    async def sample(self) -> None:
        """Measure what the active generation takes and does, and report what has changed much."""
        live, metrics = self._generations.active, self._around.metrics.engines
        if live is None:
            metrics.resting(self.name, held=self.admission.waiting)
            return
        try:
            await live.reservation.measure(live.engine)
        except EngineFailed as error:
            _log.debug("model.not_measured", model=self.name, why=error.message)
            return
        if live.reservation.stats is not None and not self._wish.is_removed:
            engine = live.generation.id
            held = self.admission.waiting
            metrics.working(self.name, engine, live.reservation.stats, held=held)
        taken = live.reservation.total
        if is_worth_telling(self._shown.resident_bytes, taken):
            self._shown.resident_bytes = taken
            self._on_change()
        if self._crashes.deaths and self._now() - live.began >= HEALTHY_SECONDS:
            self._crashes = Crashes()
            self._on_change()

    def report(self) -> ReportedModel:
        """Return the model as the pod's report shows it."""
        return reported(
            self._wish,
            self._shown,
            self._generations,
            admission=self.admission,
            stay=self._stay,
            warm=self._around.warm,
            steps=self._swapping.steps,
            failures=self._failures,
            restarts=self._crashes.deaths,
            generated_tokens=self._around.metrics.engines.generated(self.name),
        )

    # The task ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._recall()
        while not (self._wish.is_removed and self._generations.active is None):
            self._wake.clear()
            self._stay.come_back_if_there_is_room()
            step = next_step(self._situation(), self._now())
            match step:
                case Rest(until=until):
                    self._say_resting()
                    await self._rest(until)
                case Retire():
                    self._say_resting()
                    self._generations.begin_retire()
                case Park():
                    self._stay.begin_evict(Rule.IDLE, None)
                case BringUp(want=want):
                    if not isinstance(want, DesiredRevision):
                        raise TypeError(f"not a revision: {want!r}")
                    await self._attempt(want)

    async def _recall(self) -> None:
        """Go on from what the journal knows: a target that failed for good is not tried again."""
        failure = await self._swapping.steps.recall()
        if failure is not None:
            self._failures.recall(self.desired.target, failure.reason, failure.message)
            self._shown.target = failure.target
            self._shown.weights_ready = failure.target is not None
            self._shown.say(failure.reason, failure.message, final=True)
            self._apply_refusal()

    def _situation(self) -> Situation:
        live = self._generations.active
        return Situation(
            wanted=self._wish.is_wanted,
            target=self.desired.target,
            active=None if live is None else live.want,
            last_good=self._swapping.steps.last_good,
            proven_first=self._swapping.proven_first,
            waits=self._wish.waits,
            failed=self._failures.final,
            retry_at=self._failures.retry_at,
            restart_at=self._restart_at,
            idle_at=self._stay.idle_at(),
            asleep=self._stay.asleep,
        )

    async def _rest(self, until: float | None) -> None:
        """Wait until something changes, a time has come, or memory that is waited for is free."""
        since = self._failures.waits_for_memory_since
        if self._stay.waits_for_room:
            since, until = self._around.governor.releases, self._now() + ROOM_SECONDS
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._wake.wait())}
        if since is not None:
            released = asyncio.create_task(self._around.governor.released_since(since))
            released.add_done_callback(partial(self._memory_released, self._failures))
            waits.add(released)
        if until is not None:
            pause = max(0.0, until - self._now())
            waits.add(asyncio.create_task(self._around.clock.sleep(pause)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    @staticmethod
    def _memory_released(failures: Failures, waited: "asyncio.Task[None]") -> None:
        if not waited.cancelled():
            failures.memory_was_released()

    async def _attempt(self, want: DesiredRevision) -> None:
        """Bring a revision up, unless the wish changes meanwhile."""
        failures, releases = self._failures, self._around.governor.releases
        is_target, asks = want == self.desired.target, self._wish.asks
        attempt = asyncio.create_task(self._swapping.bring_up(want))
        try:
            while not attempt.done():
                self._wake.clear()
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({attempt, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                obsolete = not self._wish.is_wanted or (is_target and want != self.desired.target)
                if obsolete and not attempt.done():
                    attempt.cancel()
                    await asyncio.wait({attempt})
        finally:
            self._shown.is_loading = self._stay.is_loading = False
            self._shown.fetched_bytes = self._shown.fetch_total_bytes = None
            self._on_change()
        if attempt.cancelled():
            return
        error = attempt.exception()
        if error is None:
            self._apply_refusal()
            return
        noted = self._note_failure(want, error, failures, releases)
        # Whether it fits is found out in no time, and the memory may be another's after a restart.
        if is_target and noted.final and noted.reason is not Reason.WILL_NEVER_FIT:
            steps = self._swapping.steps
            failure = Failure(
                asks=asks,
                reason=noted.reason,
                message=noted.message,
                target=self._shown.target,
                swap=steps.reported,
            )
            await steps.keep(failure)

    def _note_short(self, why: str | None) -> None:
        self.admission.memory_is_short = why

    # What comes of it ----------------------------------------------------------------------------

    def _note_failure(
        self, want: DesiredRevision, error: BaseException, failures: Failures, releases: int
    ) -> LoadError:
        if not isinstance(error, LoadError):
            _log.error("model.attempt_broke", model=self.name, exc_info=error)
            error = LoadError(Reason.LOAD_FAILED, f"internal error: {error!r}", final=False)
        if self._swapping.took_down and not error.final:
            # Another try would take the old revision down again; only a person should ask for it.
            error = LoadError(
                error.reason,
                f"{error.message}; the previous revision is brought back, and this one is tried "
                "again once the spec changes",
                final=True,
            )
        _log.warning(
            "model.load_failed",
            model=self.name,
            uri=want.uri,
            reason=error.reason.value,
            final=error.final,
            message=error.message,
        )
        self._around.metrics.load_failures.labels(self.name, error.reason.value).inc()
        jitter = self._around.clock.jitter()
        is_short = error.reason is Reason.WAITING_FOR_MEMORY
        self.admission.memory_is_short = error.message if is_short else None
        failures.record(want, error, now=self._now(), jitter=jitter, releases=releases)
        self._shown.say(error.reason, error.message, final=error.final)
        self._apply_refusal()
        return error

    def _on_death(self, live: Live, how: str) -> None:
        self._crashes = self._crashes.after_death(self._now() - live.began)
        self._restart_at = self._now() + self._crashes.delay
        self._around.metrics.restarts.labels(self.name).inc()
        message = f"{how}; it is started again in {self._crashes.delay:g} s"
        if self._crashes.is_loop:
            message = f"the engine's process died {self._crashes.deaths} times; {message}"
        self._shown.say(Reason.CRASH_LOOPING if self._crashes.is_loop else Reason.LOADING, message)
        self._wake.set()

    def _say_resting(self) -> None:
        """Say what there is to say when nothing is being done; a failure was said already."""
        live, target = self._generations.active, self.desired.target
        if self.desired.suspended:
            self._shown.say(Reason.SUSPENDED, "suspended, or no replicas are wanted")
        elif not self._wish.is_here:
            self._shown.say(Reason.PENDING, "the model is not placed on this pod")
        elif live is not None and live.want == target:
            self._shown.say(
                Reason.SERVING,
                f"revision {live.generation.revision} answers on {live.device} "
                f"with {live.loaded.context_length} tokens of context",
            )
        elif (error := self._failures.final_error(target)) is not None:
            self._shown.say(error.reason, error.message, final=True)
        elif self._wish.waits and live is not None:
            self._shown.say(
                Reason.ROLLING_OUT,
                f"revision {live.generation.revision} answers until the next one has shown itself "
                "on another pod",
            )
        elif live is None and self._stay.asleep and self._around.warm.has(self.name):
            size = human_bytes(self._around.warm.bytes_of(self.name))
            self._shown.say(
                Reason.WARM, f"left the device; {size} in host memory bring it back soon"
            )
        elif live is None and self._stay.asleep:
            self._shown.say(Reason.IDLE, "left memory; the next request loads it again")

    def _say_busy(self, reason: Reason, message: str) -> None:
        """Say what is being done, unless it is one more turn of a crash loop."""
        if not self._crashes.is_loop or self._generations.active is not None:
            self._shown.say(reason, message)

    def _apply_refusal(self) -> None:
        """Tell the admission whether a request without a generation should wait."""
        last_good = self._swapping.steps.last_good
        self.admission.refuse(refusal_for(self._wish, self._failures, last_good))

    def _no_adapter(self, name: str) -> ServingError:
        return no_adapter(self._wish, self._failures, name)

    def _now(self) -> float:
        return self._around.clock.monotonic()
