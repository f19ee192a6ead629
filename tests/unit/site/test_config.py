"""The server's settings."""

from pathlib import Path

import pytest

from shepherd.errors import ConfigurationError
from shepherd.site.config import ServerConfig


def test_data_url_leads_nowhere_but_to_the_internet_unless_settings_say_so() -> None:
    plain = ServerConfig.from_env({}, folder=Path("/x"))
    opened = ServerConfig.from_env(
        {
            "SHEPHERD_DATA_URL_ALLOW": "node-2, node-3:9000",
            "SHEPHERD_DATA_FOLDERS": "/srv/data/, /srv/more",
            "SHEPHERD_DATA_BUCKETS": "open,shared/mine",
            "SHEPHERD_DATA_URL_MB": "1.5",
            "SHEPHERD_DATA_URL_S": "60",
        },
        folder=Path("/x"),
    )

    assert (plain.data_sources.allow, plain.data_sources.folders, plain.data_sources.buckets) == ((), (), ())
    assert (plain.data_url_size, plain.data_url_time.total_seconds()) == (64 * 1024**3, 3600)
    assert opened.data_sources.allow == ("node-2", "node-3:9000")
    assert opened.data_sources.folders == ("/srv/data", "/srv/more")
    assert opened.data_sources.buckets == ("open", "shared/mine")
    assert (opened.data_url_size, opened.data_url_time.total_seconds()) == (1_572_864, 60)


@pytest.mark.parametrize("folder", ["srv/data", "/srv/../etc"])
def test_a_folder_that_is_no_absolute_path_is_refused_by_its_variable(folder: str) -> None:
    with pytest.raises(ConfigurationError, match="SHEPHERD_DATA_FOLDERS"):
        ServerConfig.from_env({"SHEPHERD_DATA_FOLDERS": folder}, folder=Path("/x"))
