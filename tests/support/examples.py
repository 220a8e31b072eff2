"""Which examples hypothesis tries: few in the short form, the same in every run of it; many others
with `--slow`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile(
    "short", max_examples=40, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.register_profile(
    "long", settings.get_profile("short"), max_examples=1000, derandomize=False
)


def load(profile: str) -> None:
    """Use the profile `short` or `long` from now on: before any test module is imported."""
    settings.load_profile(profile)


def examples(usual: int) -> settings:
    """A decorator for a property that wants another number than the usual 100."""
    return settings(max_examples=max(usual * settings().max_examples // 100, 5))
