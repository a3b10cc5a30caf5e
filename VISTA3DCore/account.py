"""What libraries want to know of the user, where the system knows nobody: a container with a user id of its own."""

from __future__ import annotations

import os

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def describe_user() -> None:
    """Name the user and a home in the environment if the user id has no account.

    MONAI and PyTorch ask for the user's name when they are imported, others for the home; both questions raise there.
    Nothing changes for users with an account. Docker gives such users the home ``/``, and so do we.
    """
    if os.name != "posix":
        return
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in _NAMES):
            os.environ["LOGNAME"] = f"user{os.getuid()}"
        os.environ.setdefault("HOME", "/")
