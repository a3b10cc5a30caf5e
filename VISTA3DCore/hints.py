"""What to do about an error, in the words of the command line and of Python; other front ends have their own.

An error carries the key (``VistaError.hint``); its facts fill the braces. The words follow the problem as they stand
here, punctuation included.
"""

from __future__ import annotations

HINTS = {
    "accept-license": (
        "; read it (`vista3d models licence {model}`, {url}) and, if you agree, repeat with --accept-licence "
        "(in Python: accept_licence=True)."
    ),
    "bring-model": "; bring the file from elsewhere and use `vista3d models import FILE --name {model}`.",
    "check-connection": (
        "; check the connection and the proxy (HTTPS_PROXY), or bring the file on a USB drive and use "
        "`vista3d models import FILE`."
    ),
    "choose-click-model": "; use vista3d-ct for them.",
    "choose-device": "; use 'auto' or 'cpu'.",
    "choose-device-kind": "; use auto, cpu, cuda or mps.",
    "download-model": (
        "; use `vista3d models download {model}`, or offline bring the file from elsewhere and use "
        "`vista3d models import FILE --name {model}`."
    ),
    "free-model-space": ". Free some space or set VISTA3D_HOME to another folder.",
    "free-temporary-space": "; free space there, or set TMPDIR to another folder.",
    "get-again": ". Get it again, or use it by its path (--model {path}).",
    "import-file": "; use `vista3d models import FILE` instead.",
    "install-packages": "; install with: pip install {packages}.",
    "install-runtime": "; install the engine's runtime with: pip install torch monai.",
    "log-in": "; log in with an account that may read it, or set HF_TOKEN.",
    "name-model": "; name it with --name (one of {models}).",
    "update-or-import": "; update VISTA3D, or import the file with `vista3d models import FILE`.",
    "use-by-path": ": use it by its path (--model {path}).",
    "use-full-model": ". Use the full model: `vista3d models download {full_model}`.",
}
