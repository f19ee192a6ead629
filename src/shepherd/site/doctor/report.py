"""What `manage.py doctor` prints."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final

from shepherd.site.doctor.examination import Found
from shepherd.site.doctor.finding import Level

_INDENT: Final = " " * 9


def as_json(found: Sequence[Found]) -> str:
    rows = [
        {
            "check": each.check,
            "level": str(each.finding.level),
            "what": each.finding.what,
            "why": each.finding.why,
            "remedy": each.finding.remedy,
        }
        for each in found
    ]
    return json.dumps({"findings": rows, "levels": _counts(found)}, indent=2)


def as_text(found: Sequence[Found]) -> str:
    counts = _counts(found)
    closing = ", ".join(f"{counts[level]} {level}" for level in Level)
    return "\n".join([*(line for each in found for line in _lines(each)), "", closing])


def _lines(each: Found) -> list[str]:
    finding = each.finding
    lines = [f"{finding.level:<8} {each.check}: {finding.what}"]
    if finding.why:
        lines.append(f"{_INDENT}why:  {finding.why}")
    if finding.remedy:
        lines.append(f"{_INDENT}mend: {finding.remedy}")
    return lines


def _counts(found: Sequence[Found]) -> dict[str, int]:
    counted = Counter(each.finding.level for each in found)
    return {str(level): counted[level] for level in Level}
