"""``python -m VISTA3DCore.cli``: the command line where the command ``vista3d`` is not on the path."""

from VISTA3DCore.cli.main import app

app(prog_name="vista3d")
