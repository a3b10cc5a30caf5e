# SPDX-License-Identifier: Apache-2.0
"""Widgets: they show what the logic says and tell it what the user wants."""
