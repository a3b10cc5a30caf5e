# SPDX-License-Identifier: Apache-2.0
"""Volumes that are open in the engine: each once, closed when it changes or leaves the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import slicer

from VISTA3DCore.engine.client import model_on_wire
from VISTA3DCore.engine.protocol import ArrayRef, CloseParams, OpenParams
from VISTA3DCore.errors import Cancelled, InputError, VistaError

from ..mrml.volumes import content_key, to_volume
from .engine import Engine, OnError, OnProgress, Pending
from .observers import watch_scene
from .signals import log

if TYPE_CHECKING:
    from VISTA3DCore.engine.client import ProgressEvent
    from VISTA3DCore.engine.protocol import OpenResult
    from VISTA3DCore.imaging.volume import Volume

OnReady = Callable[[str], Any]
_Key = tuple[str, str, str]

_CHANGED = "The volume changed in the meantime; start again."
_GONE = "The volume is no longer in the scene."


@dataclass(eq=False)
class _User:
    """Somebody who waits for a volume, see :class:`Pending`."""

    opened: OpenedVolumes
    on_ready: OnReady
    on_error: OnError
    on_progress: OnProgress | None
    done: bool = False
    entry: _Opened | None = None

    def cancel(self) -> None:
        """See :class:`Pending`."""
        if not self.done:
            self._leave()
            self.opened.call_later(0.0, partial(self._fail, Cancelled()))

    def drop(self) -> None:
        """See :class:`Pending`."""
        self.done = True
        self._leave()

    def _leave(self) -> None:
        if self.entry is not None:
            self.opened._left(self.entry, self)

    def _succeed(self, session: str) -> None:
        if not self.done:
            self.done = True
            _call(self.on_ready, session)

    def _fail(self, error: VistaError) -> None:
        if not self.done:
            self.done = True
            _call(self.on_error, error)

    def _report(self, event: ProgressEvent) -> None:
        if not self.done and self.on_progress is not None:
            _call(self.on_progress, event)


@dataclass(eq=False)
class _Opened:
    """A volume that is open or being opened.

    :param content: what was sent to the engine, see :func:`content_key`.
    :param opened: the engine's answer; None while it is being opened.
    :param pending: the volume's way to the engine, then the request to open it.
    """

    node: slicer.vtkMRMLScalarVolumeNode
    content: tuple[Any, ...]
    opened: OpenResult | None = None
    pending: Pending | None = None
    users: list[_User] = field(default_factory=list)


class OpenedVolumes:
    """Opens volumes in the engine when they are needed, and closes them when they have changed or are gone.

    :param engine: where to open them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self.call_later = engine, engine.call_later
        self._entries: dict[_Key, _Opened] = {}
        self._scenes: dict[Any, list[int]] = {}
        engine.stopped.connect(self._on_stopped)

    def session_of(self, volume_node: slicer.vtkMRMLScalarVolumeNode, model: str, device: str) -> str | None:
        """Return the session of a volume that is open as it is now, else None."""
        opened = self.opened(volume_node, model, device)
        return None if opened is None else opened.session

    def opened(self, volume_node: slicer.vtkMRMLScalarVolumeNode, model: str, device: str) -> OpenResult | None:
        """Return what the engine said of a volume that is open as it is now, else None."""
        entry = self._entries.get((volume_node.GetID(), model, device))
        return None if entry is None or entry.content != content_key(volume_node) else entry.opened

    def use(
        self,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        model: str,
        device: str,
        on_ready: OnReady,
        on_error: OnError,
        on_progress: OnProgress | None = None,
    ) -> Pending:
        """Open a volume, unless it is open as it is now, and hand its session to ``on_ready``.

        No callback comes before this has returned. If a request on the session fails with ``UnknownSessionError`` or
        ``WorkerGoneError``, call :meth:`forget` to open the volume anew the next time.
        """
        user = _User(self, on_ready, on_error, on_progress)
        key = (volume_node.GetID(), model, device)
        try:
            entry = self._present(key, volume_node) or self._open(key, volume_node)
        except VistaError as error:
            self.call_later(0.0, partial(user._fail, error))
            return user
        if entry.opened is not None:
            self.call_later(0.0, partial(user._succeed, entry.opened.session))
        else:
            user.entry = entry
            entry.users.append(user)
        return user

    def forget(self, volume_node: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Close a volume, with all models; who waits for it hears that it is gone."""
        for key, entry in list(self._entries.items()):
            if entry.node is volume_node:
                self._close(key)

    def close_all(self) -> None:
        """Close all volumes, e.g. because the scene was closed."""
        for key in list(self._entries):
            self._close(key)
        for scene, observers in self._scenes.items():
            for observer in observers:
                scene.RemoveObserver(observer)
        self._scenes.clear()

    def _present(self, key: _Key, node: slicer.vtkMRMLScalarVolumeNode) -> _Opened | None:
        """Return the entry of a volume if it is still right; one that is not is closed."""
        entry = self._entries.get(key)
        if entry is not None and (entry.node is not node or entry.content != content_key(node)):
            self._close(key, _CHANGED)
            return None
        return entry

    def _open(self, key: _Key, node: slicer.vtkMRMLScalarVolumeNode) -> _Opened:
        """:raises VistaError: if the volume cannot be used or not be handed over."""
        volume = to_volume(node, self._subject_hierarchy(node))
        entry = _Opened(node, content_key(node))
        sent = partial(self._on_handed_over, key, entry, volume)
        entry.pending = self._engine.hand_over(
            volume.array, volume.affine, sent, partial(self._on_failed, key, entry, None)
        )
        self._entries[key] = entry
        self._watch(node.GetScene())
        return entry

    def _on_handed_over(self, key: _Key, entry: _Opened, volume: Volume, ref: ArrayRef) -> None:
        failed = partial(self._on_failed, key, entry, ref)
        if entry.content != content_key(entry.node):
            failed(InputError(_CHANGED))
            return
        params = OpenParams(ref, model_on_wire(key[1]), volume.name, volume.modality, key[2])
        opened, progressed = partial(self._on_opened, key, entry), partial(self._on_progress, entry)
        entry.pending = self._engine.request("open", params, opened, failed, progressed)

    def _on_opened(self, key: _Key, entry: _Opened, result: OpenResult) -> None:
        entry.opened, entry.pending = result, None
        if self._entries.get(key) is not entry:  # nobody wants it any more
            self._close_session(result.session)
        users, entry.users = entry.users, []
        for user in users:
            user._succeed(result.session)

    def _on_failed(self, key: _Key, entry: _Opened, ref: ArrayRef | None, error: VistaError) -> None:
        if ref is not None:
            self._engine.delete_array(ref)
        if self._entries.get(key) is entry:
            del self._entries[key]
        users, entry.users = entry.users, []
        for user in users:
            user._fail(error)

    def _on_progress(self, entry: _Opened, event: ProgressEvent) -> None:
        for user in list(entry.users):
            user._report(event)

    def _left(self, entry: _Opened, user: _User) -> None:
        """Somebody does not wait any more; if it was the last one, nothing is opened."""
        if user not in entry.users:
            return
        entry.users.remove(user)
        if not entry.users and entry.pending is not None:
            self._entries = {key: one for key, one in self._entries.items() if one is not entry}
            entry.pending.cancel()

    def _close(self, key: _Key, reason: str = _GONE) -> None:
        entry = self._entries.pop(key)
        if entry.opened is not None:
            self._close_session(entry.opened.session)
        elif entry.pending is not None:
            entry.pending.cancel()
        users, entry.users = entry.users, []
        for user in users:
            self.call_later(0.0, partial(user._fail, InputError(reason)))

    def _close_session(self, session: str) -> None:
        self._engine.request("close", CloseParams(session), _ignore, _ignore)

    def _on_stopped(self) -> None:
        for entry in self._entries.values():
            if entry.pending is not None:
                entry.pending.cancel()
        self._entries.clear()

    # The scene

    @staticmethod
    def _subject_hierarchy(node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSubjectHierarchyNode | None:
        scene = node.GetScene()
        return None if scene is None else slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    def _watch(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is None or scene in self._scenes:
            return
        self._scenes[scene] = watch_scene(scene, self.forget, self.close_all)


def _call(function: Callable[[Any], Any], argument: Any) -> None:
    """Tell one of those who wait; what it raises is logged and does not keep the news from the others."""
    try:
        function(argument)
    except Exception:
        log.exception("A callback failed")


def _ignore(_answer: Any) -> None:
    """Nobody is interested in the answer."""
