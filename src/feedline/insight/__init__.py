"""Insight: what a loader has done, and what is wrong with it before it begins."""

from __future__ import annotations

from feedline.insight.stats import Counters, Stats

__all__ = ["Counters", "Stats"]
