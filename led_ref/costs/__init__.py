"""What a run costs, computed before it: operations.py (operations, bytes, launches), memory.py."""

from led_ref.costs.memory import Plan, plan
from led_ref.costs.operations import LED_BASE, LED_LARGE, Workload

__all__ = ["LED_BASE", "LED_LARGE", "Plan", "Workload", "plan"]
