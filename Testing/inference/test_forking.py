"""A process that was forked after a run refuses in a sentence instead of waiting for ever."""

from __future__ import annotations

import multiprocessing
import sys

import pytest

from VISTA3DCore.errors import DeviceError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.inference.segmenter import Segmenter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")


def _refused(call, answers) -> None:
    try:
        call()
    except DeviceError as error:
        answers.put(str(error))
    else:
        answers.put("no refusal")


def test_every_use_in_a_forked_process_says_spawn(tiny_model):
    volume, _ = paint_phantom((24, 20, 22))
    segmenter = Segmenter.from_pretrained(tiny_model, device="cpu")
    with segmenter.open(volume) as session:
        session.segment("liver")
        session.click("liver", [Click((0.0, 0.0, 0.0))])
        calls = (
            lambda: Segmenter.from_pretrained(tiny_model, device="cpu"),
            lambda: segmenter.open(volume),
            lambda: session.segment("liver"),
            lambda: session.click("liver", [Click((0.0, 0.0, 0.0))]),
        )
        context = multiprocessing.get_context("fork")
        for call in calls:
            answers = context.SimpleQueue()
            child = context.Process(target=_refused, args=(call, answers))
            child.start()
            child.join(60)
            if child.is_alive():
                child.kill()
                pytest.fail("The forked process hangs.")
            assert "'spawn'" in answers.get()
