"""An example as a teacher writes it."""

from typing import Any


def example(**changes: Any) -> dict[str, Any]:
    """A right one of the module `algebra/linear`, with other top-level values."""
    return {
        "module": "algebra/linear",
        "prereq": [],
        "difficulty_tag": "introductory",
        "problem": "Three boxes and 4 apples hold 19 apples. Solve 3x + 4 = 19.",
        "solution": {
            "steps": ["Take away 4: 3x = 15.", "Share by 3: x = 5."],
            "final_answer": "5",
            "verification": "3 * 5 + 4 = 19",
        },
        "adapter_flags": {
            "concretization": True,
            "decomposition": True,
            "cognitive_load": {"scale": "small", "notes": ""},
            "format_template": "numbered",
            "simplified_language": True,
        },
        "metadata": {"stage_id": "1", "seed_style_ref": "seed"},
    } | changes
