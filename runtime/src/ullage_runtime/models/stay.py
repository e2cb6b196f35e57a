"""A model's stay in memory: who may end it, since when nobody uses it, and how it last ended."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import structlog

from ullage_api.kinds.memory import Eviction, ResidencyPolicy, ResidencySettings
from ullage_runtime.core.decisions import Decision, Rule
from ullage_runtime.core.eviction import Candidate
from ullage_runtime.core.sizes import rfc3339
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.models.admission import Admission
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.live import Live
from ullage_runtime.models.room import words
from ullage_runtime.models.surroundings import Surroundings

_log = structlog.get_logger(__name__)


class Stay:
    """One model as the pod's memory sees it; a `Resident`.

    `wake` has the model's own task look at what has changed.
    """

    def __init__(
        self,
        name: str,
        wish: ResidencySettings,
        admission: Admission,
        generations: Generations,
        *,
        around: Surroundings,
        wake: Callable[[], None],
    ) -> None:
        self.name = name
        self.wish = wish
        self._admission = admission
        self._generations = generations
        self._around = around
        self._wake = wake
        self._used_at = around.clock.monotonic()
        admission.on_change = self._note_use
        admission.on_miss = self._note_miss
        self._last: Decision | None = None
        self._left: Reservation | None = None
        """What it had when it last left."""
        self.is_wanted = True
        """Whether this pod should serve it at all."""
        self.asleep = False
        """Whether it left memory and need not be back before somebody asks for it."""
        self.is_returning = False
        """Whether it comes back by itself, for which nobody has to leave."""
        self.is_loading = False
        """Whether something of it is being loaded, which must not be disturbed."""

    # As others see it who need memory ------------------------------------------------------------

    @property
    def running(self) -> int:
        """Requests that hold it."""
        return self._admission.running

    def candidate(self) -> Candidate | None:
        """Return it as others see it who need memory; None while it has none or is loading."""
        live = self._generations.active
        if live is None or self.is_loading:
            return None
        return Candidate(
            name=self.name,
            bytes=live.reservation.bytes,
            devices=live.reservation.devices,
            priority=self.wish.rank,
            idle_seconds=self._idle_seconds(live),
            reload_seconds=live.load_seconds,
            pinned=self._is_pinned,
            returns=self.wish.effective_policy is ResidencyPolicy.PRELOAD,
        )

    def hold_back(self, *, hold: bool) -> None:
        """Have new requests wait, or no longer."""
        self._admission.hold_back(hold=hold)

    def begin_evict(self, rule: Rule, beneficiary: str | None) -> "asyncio.Task[None] | None":
        """Unload what answers; it comes back once somebody asks for it."""
        live = self._generations.active
        if live is None:
            return None
        held = live.reservation
        count, idle, self._left = held.total, self._idle_seconds(live), held
        is_over = rule is Rule.IDLE and self._is_over(idle)
        self.asleep = not self._admission.waiting
        self._last = self._around.decisions.add(
            time=self._around.clock.wall(),
            model=self.name,
            rule=rule,
            count=count,
            beneficiary=beneficiary,
            message=words(
                rule, count, beneficiary, idle, "unloadSeconds" if is_over else "idleSeconds"
            ),
        )
        self._around.metrics.evictions.labels(self.name, rule.value).inc()
        self._around.metrics.evicted_bytes.inc(count)
        _log.info("model.evicted", model=self.name, rule=rule.value, bytes=count, by=beneficiary)
        leaving = self._generations.begin_retire(around=None if is_over else self._keeping)
        self._wake()
        return leaving

    def _keeping(self, live: Live) -> AbstractAsyncContextManager[None]:
        """Keep the model warm when it leaves, until it is to be unloaded altogether."""
        if not self.is_wanted or not self.wish.keeps_warm:
            return nullcontext()
        unload = self.wish.unload_seconds
        expires = max(self._used_at, live.began) + unload if unload else None
        return self._around.warm.leaving(self.name, live, expires, self._wake)

    # As the model itself sees it -----------------------------------------------------------------

    @property
    def waits_for_room(self) -> bool:
        """Whether it left and comes back as soon as there is room."""
        return self.asleep and self.wish.effective_policy is ResidencyPolicy.PRELOAD

    @property
    def last_eviction(self) -> Eviction | None:
        """How it last left, as the pod's report shows it."""
        if self._last is None:
            return None
        return Eviction(
            time=rfc3339(self._last.time),
            rule=self._last.rule.value,
            beneficiary=self._last.beneficiary,
            bytes=self._last.bytes,
        )

    def change(self, wish: ResidencySettings) -> None:
        """Take a new wish; a model that is not to leave any more comes back."""
        if wish != self.wish and wish.effective_policy is not ResidencyPolicy.ON_DEMAND:
            self.asleep = False
        self.wish = wish

    def come_back(self) -> None:
        """Have it come back because somebody asks for it."""
        self.asleep = self.is_returning = False

    def come_back_if_there_is_room(self) -> None:
        """Have a model that returns by itself do so, if nobody needs the room."""
        if self._around.governor.is_short:
            return
        left = self._left
        if self.waits_for_room and left and self._around.room.has(left.bytes, len(left.devices)):
            self.asleep, self.is_returning = False, True

    def _note_use(self) -> None:
        is_idle = not self._admission.running
        if is_idle:
            self._used_at = self._around.clock.monotonic()
        # Of what stands by the last request may have ended, though others run on what answers.
        if is_idle or self._generations.standby is not None:
            self._around.room.stir()
        if is_idle and self.wish.longest_idle:
            self._wake()

    def _note_miss(self) -> None:
        if self.asleep:
            self.come_back()
            self._wake()

    def idle_at(self) -> float | None:
        """Return when what answers will have been idle for as long as it may; None for ever."""
        live, seconds = self._generations.active, self.wish.longest_idle
        if live is None or not seconds or self._is_pinned or self._idle_seconds(live) is None:
            return None
        return max(self._used_at, live.began) + seconds

    def _is_over(self, idle: float | None) -> bool:
        """Whether it has been idle for so long that nothing of it is to stay in memory."""
        seconds = self.wish.unload_seconds
        return seconds is not None and 0 < seconds <= (idle or 0.0)

    @property
    def _is_pinned(self) -> bool:
        return self.wish.effective_policy is ResidencyPolicy.PINNED

    def _idle_seconds(self, live: Live) -> float | None:
        if self._admission.running or self._admission.waiting:
            return None
        return self._around.clock.monotonic() - max(self._used_at, live.began)
