"""The engine in a process of its own, and how to speak with it.

``python -m VISTA3DCore.engine`` is the engine process; everything else here is for its clients.
Documentation/protocol.md describes what travels between them.
"""
