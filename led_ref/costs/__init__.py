"""What a run costs, computed before it: operations.py (operations, bytes, launches), memory.py."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.costs.memory import Plan, plan
    from led_ref.costs.operations import LED_BASE, LED_LARGE, Workload

__all__ = ["LED_BASE", "LED_LARGE", "Plan", "Workload", "plan"]

__getattr__, __dir__ = hand_on(
    __name__, {"memory": ("Plan", "plan"), "operations": ("LED_BASE", "LED_LARGE", "Workload")}
)
