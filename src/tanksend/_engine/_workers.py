"""The tasks of a run that make its attempts, and wait for slots in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .._loops import uninterrupted

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from ._entry import Parcel
    from ._run import Run


class Worker:
    """A task, and what it was woken for and has not begun yet."""

    __slots__ = ("dismissed", "event", "leads", "parcel", "scope")

    def __init__(self, parcel: Parcel | None) -> None:
        # One scope for all of its life: the run decides when what is on the wire ends, not who cancels the caller.
        self.scope = anyio.CancelScope(shield=True)
        self.event = anyio.Event()
        self.parcel = parcel
        self.leads = parcel is None
        self.dismissed = False


class Workers:
    """As many as there are requests on the wire at once, and one that leads; no more are started than were needed."""

    def __init__(self, run: Run, tasks: TaskGroup) -> None:
        self._run = run
        self._tasks = tasks
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    def set_to(self, parcel: Parcel | None) -> None:
        """An idle worker, or a new one, makes the attempt for *parcel*; with None it waits for the next slots."""
        if self._idle:
            worker = self._idle.pop()
            worker.parcel = parcel
            worker.leads = parcel is None
            worker.event.set()
        else:
            worker = Worker(parcel)
            self._all.add(worker)
            self._tasks.start_soon(uninterrupted(self._work), worker)

    def dismiss_idle(self) -> None:
        """The run leaves: nobody will be woken for anything else."""
        for worker in self._idle:
            worker.dismissed = True
            worker.event.set()
        self._idle.clear()

    def cut(self) -> None:
        """End what is on the wire."""
        books = self._run.books
        for worker in self._all:
            if books is None or not books.spares(worker.scope):
                worker.scope.cancel()

    def bury(self) -> None:
        """No task is left. Where some were killed before they began, what they had in hand goes back."""
        for worker in tuple(self._all):
            self._gone(worker)

    async def _work(self, worker: Worker) -> None:
        """The life of a worker, which begins with a parcel or as leader."""
        run, lanes = self._run, self._run.lanes
        with worker.scope:
            try:
                while not worker.dismissed:
                    parcel, worker.parcel = worker.parcel, None
                    if parcel is None:
                        worker.leads = False
                        parcel = await lanes.lead(run)
                    while parcel is not None:
                        await run.attempts.make(parcel, worker.scope)
                        parcel = await lanes.lead(run) if lanes.try_lead(run) else None
                    if run.leaving:
                        return
                    worker.event = anyio.Event()
                    self._idle.append(worker)
                    await worker.event.wait()
            except anyio.get_cancelled_exc_class():
                if worker.scope.cancel_called:
                    raise
                # By name, past all scopes: its event loop is being torn down.
                run.stop("stopped, because a task of it was cancelled")
            except BaseException as error:  # noqa: BLE001  (it comes out of the caller's block)
                run.crash(error)
            finally:
                self._gone(worker)

    def _gone(self, worker: Worker) -> None:
        """*worker* has ended, or never began."""
        self._all.discard(worker)
        self._run.left(worker.parcel, led=worker.leads)
