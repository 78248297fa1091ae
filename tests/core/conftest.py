"""Lets the helpers' assertions say what they found."""

from __future__ import annotations

import pytest


pytest.register_assert_rewrite("tests.core.feed", "tests.core.play")
