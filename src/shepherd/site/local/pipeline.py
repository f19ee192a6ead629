"""The first pipeline: five tasks over every flight that left New York in 2013."""

from typing import Any, Final

NAME: Final = "delays_by_route"


def body(data_url: str) -> dict[str, Any]:
    """Return the request that submits it."""
    tasks: list[tuple[str, dict[str, Any]]] = [
        ("skip_column", {"columns": ["tailnum", "time_hour"]}),
        ("rename_column", {"rename_dict": {"dep_delay": "departure_delay"}}),
        (
            "merge_columns",
            {"columns": ["origin", "dest"], "output_column": "route", "separator": "-", "drop_flag": "True"},
        ),
        ("anonymize", {"column": "carrier", "to_replace": "UA", "replace_val": "carrier-1"}),
        ("aggregate", {"index": ["route", "carrier"], "columns": "", "values": ["departure_delay", "arr_delay"]}),
    ]
    return {
        "pipeline_name": NAME,
        "data_url": data_url,
        "project": "generic_transformations",
        "transformers_list": [
            {"name": name, "order_no": order_no, "context": context}
            for order_no, (name, context) in enumerate(tasks, start=1)
        ],
    }
