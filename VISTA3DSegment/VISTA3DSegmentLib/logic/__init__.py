# SPDX-License-Identifier: Apache-2.0
"""What happens when a user asks for something: engine, runs, clicks, set-up. Signals instead of widgets."""
