# SPDX-License-Identifier: Apache-2.0
"""MRML nodes to what the engine understands, and back. Scene, nodes and logics are passed in."""
