"""Runs untrusted Python programs, isolated, and tests them from outside."""

from ioa_jax.sandbox.base import Backend, CheckResult, Limits, SandboxInfo, Status
from ioa_jax.sandbox.sandbox import Sandbox, probe

__all__ = ["Backend", "CheckResult", "Limits", "Sandbox", "SandboxInfo", "Status", "probe"]
