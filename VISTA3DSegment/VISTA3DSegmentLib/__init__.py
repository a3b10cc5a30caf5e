# SPDX-License-Identifier: Apache-2.0
"""What the module and the effect are made of: ``mrml`` and ``logic`` know no widgets, ``widgets`` know no engine."""
