"""The parameters and results of all requests and notifications, as typed, frozen dataclasses.

:mod:`VISTA3DCore.engine.protocol` says which belongs to which method; Documentation/protocol.md describes the fields.
Positions are RAS millimetres, affines 4x4 (voxel index -> RAS millimetres), boxes half-open voxel ranges of the input
grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

from VISTA3DCore import json_dataclasses
from VISTA3DCore.engine.errors import InvalidParamsError
from VISTA3DCore.imaging.clicks import Click

T = TypeVar("T", bound="Message")

Position = tuple[float, float, float]
Corners = tuple[float, float, float, float, float, float]
Row = tuple[float, float, float, float]
Affine = tuple[Row, Row, Row, Row]
Range = tuple[int, int]
Id = int | str


class Message:
    """Base of all messages. Subclasses are frozen dataclasses, see :mod:`VISTA3DCore.json_dataclasses`.

    They leave comparing and printing to this class (``eq=False, repr=False``): what dataclasses generate for each of
    them would be a third of the time that importing the client takes.
    """

    #: Whether unknown fields are refused. Requests are strict, so that a misspelt field does not go unnoticed; results
    #: are not, so that a later engine may say more.
    strict: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return json_dataclasses.to_json(self)

    @classmethod
    def from_json(cls: type[T], value: Any) -> T:
        """Return the message that a JSON object describes.

        :raises InvalidParamsError: if a field is missing, unknown or of the wrong type; the sentence names it.
        """
        try:
            return json_dataclasses.from_json(cls, value)
        except json_dataclasses.JsonError as error:
            raise InvalidParamsError(str(error)) from None


class Params(Message):
    """Base of the parameters of requests and notifications."""

    strict: ClassVar[bool] = True


class Result(Message):
    """Base of results."""


# Shared parts


@dataclass(frozen=True, eq=False, repr=False)
class ArrayRef(Message):
    """An array in a file of the shared directory; ``affine`` where it has a place in space."""

    strict: ClassVar[bool] = True

    file: str
    shape: tuple[int, ...]
    dtype: str
    affine: Affine | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ClientInfo(Params):
    """Who asks, for the log."""

    name: str
    version: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Memory(Message):
    """Bytes; the device's are None where it has no memory of its own."""

    total: int
    available: int
    device_total: int | None = None
    device_available: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ModelInfo(Message):
    """One model that the engine knows by name."""

    name: str
    title: str
    installed: bool
    bundled: bool
    licence: str


@dataclass(frozen=True, eq=False, repr=False)
class SuggestionInfo(Message):
    """A place to look at next, see :class:`VISTA3DCore.inference.clicks.results.Suggestion`."""

    position: Position
    score: float
    positive: bool


# Requests and results


@dataclass(frozen=True, eq=False, repr=False)
class InitializeParams(Params):
    """The first request. The engine exits when the process ``parent_pid`` is gone, and always when its pipe closes.

    ``compute`` false: PyTorch is never imported, and only the requests about models and this computer are answered.
    """

    protocol_version: int
    client: ClientInfo
    shared_directory: str
    parent_pid: int | None = None
    compute: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class InitializeResult(Result):
    """Who answers; ``device`` is empty where nothing is computed."""

    protocol_version: int
    engine_version: str
    pid: int
    device: str
    device_reason: str
    memory: Memory
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class LoadParams(Params):
    """Load a model, or make sure that it is loaded."""

    model: str
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, eq=False, repr=False)
class ClaimInfo(Message):
    """See :class:`VISTA3DCore.models.claims.Claim`."""

    dice: float
    cases: int
    painted: bool


@dataclass(frozen=True, eq=False, repr=False)
class ClaimsInfo(Message):
    """See :class:`VISTA3DCore.models.claims.Claims`; ``structures``: figures by index."""

    threshold: float
    structures: dict[str, ClaimInfo]


@dataclass(frozen=True, eq=False, repr=False)
class LoadResult(Result):
    """``available``: what can be segmented by name, as indices of the catalogue ``label_set``.

    ``trained``: what the model was trained for, all of which can be clicked; ``claims``: the figures of its validation,
    None where nothing is recorded; ``provenance``: what every result of the model carries; ``runtime``, ``precision``:
    what really runs the network. ``trained`` and the last two are empty from engines that do not report them.
    """

    model: str
    device: str
    device_reason: str
    available: tuple[int, ...]
    click_branch: bool
    label_set: str
    provenance: dict[str, str] = field(default_factory=dict)
    runtime: str = ""
    precision: str = ""
    runtime_reason: str = ""
    trained: tuple[int, ...] = ()
    claims: ClaimsInfo | None = None


@dataclass(frozen=True, eq=False, repr=False)
class OpenParams(Params):
    """Preprocess a volume; the engine loads the model if need be. ``grid``: as :meth:`Segmenter.open` takes it."""

    volume: ArrayRef
    model: str
    name: str = ""
    modality: str | None = None
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"
    grid: str = "stored"


@dataclass(frozen=True, eq=False, repr=False)
class OpenResult(Result):
    """``notes``: sentences for people; ``engine_ms``: milliseconds that the engine itself took.

    ``window``: voxels of the model grid that the network sees at a time; ``spacing``: of that grid, in mm; ``device``:
    where it really runs; ``label_set``: which catalogue results refer to. None and empty from engines that do not tell.
    """

    session: str
    model_shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    engine_ms: float = 0.0
    window: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    device: str = ""
    label_set: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class SegmentParams(Params):
    """See :meth:`VISTA3DCore.inference.session.Session.segment`."""

    session: str
    structures: tuple[str | int, ...]
    preset: str = "bundle"
    restoration: str = "nearest"
    roi: Corners | None = None
    streaming: bool | None = None
    body_crop: bool = False
    localize: bool = False
    cleanup: bool | None = None
    partial: bool = False
    order_from: Position | None = None


@dataclass(frozen=True, eq=False, repr=False)
class SegmentResult(Result):
    """``labels``: uint16, value = structure; ``masks``: bool, by structure, of those that may overlap others.

    ``kept``: whether other structures of the same preset and region need no network any more; false from engines that
    do not report it.
    """

    labels: ArrayRef
    masks: dict[str, ArrayRef]
    structures: tuple[int, ...]
    provenance: dict[str, str]
    notes: tuple[str, ...] = ()
    engine_ms: float = 0.0
    kept: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class PartialInfo(Message):
    """What is known of a :class:`SegmentResult` in mid-run; ``fraction``: windows that have run, of all."""

    labels: ArrayRef
    masks: dict[str, ArrayRef]
    structures: tuple[int, ...]
    fraction: float


@dataclass(frozen=True, eq=False, repr=False)
class ClickParams(Params):
    """See :meth:`VISTA3DCore.inference.session.Session.click`. The client deletes the base's file, never the engine."""

    session: str
    structure: str | int | None
    clicks: tuple[Click, ...]
    base: ArrayRef | None = None
    settled: int = 0
    policy: str = "reuse"
    variant: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ClickAnswer(Result):
    """``patch``: the object's mask in ``box``; None where nothing changed."""

    box: tuple[Range, Range, Range]
    patch: ArrayRef | None
    touched: tuple[bool, ...]
    encoded: int
    structure: int | None
    engine_ms: float = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class WarmParams(Params):
    """Prepare for a click at a place; any other request goes first."""

    session: str
    position: Position
    policy: str = "reuse"


@dataclass(frozen=True, eq=False, repr=False)
class WarmResult(Result):
    """``encoded``: how many windows that took; 0 if they were ready, or if another request came first."""

    encoded: int


@dataclass(frozen=True, eq=False, repr=False)
class HitParams(Params):
    """Which structure a click at a place would mean."""

    session: str
    structure: str | int
    position: Position


@dataclass(frozen=True, eq=False, repr=False)
class HitResult(Result):
    """A catalogue index."""

    structure: int


@dataclass(frozen=True, eq=False, repr=False)
class SuggestParams(Params):
    """Where the next clicks would help most."""

    session: str
    structure: str | int | None
    clicks: tuple[Click, ...] = ()
    base: ArrayRef | None = None
    count: int = 1
    settled: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class SuggestResult(Result):
    """The best place first."""

    suggestions: tuple[SuggestionInfo, ...]


@dataclass(frozen=True, eq=False, repr=False)
class UncertaintyParams(Params):
    """How unsure the network is."""

    session: str
    structure: str | int | None
    clicks: tuple[Click, ...] = ()
    base: ArrayRef | None = None


@dataclass(frozen=True, eq=False, repr=False)
class UncertaintyResult(Result):
    """float32 in 0..1 on the model grid, with its affine."""

    uncertainty: ArrayRef


@dataclass(frozen=True, eq=False, repr=False)
class CloseParams(Params):
    """Free a session."""

    session: str


def arrays_in(message: Any) -> list[ArrayRef]:
    """Return the arrays that a message refers to."""
    if isinstance(message, ArrayRef):
        return [message]
    if is_dataclass(message):
        parts = [getattr(message, one.name) for one in fields(message)]
    elif isinstance(message, dict):
        parts = list(message.values())
    else:
        parts = list(message) if isinstance(message, (tuple, list)) else []
    return [ref for part in parts for ref in arrays_in(part)]
