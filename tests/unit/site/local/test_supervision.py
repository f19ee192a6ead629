from configparser import RawConfigParser
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from shepherd.errors import ConfigurationError
from shepherd.site.local.programs import Program
from shepherd.site.local.supervision import render

AWKWARD = 'a "quoted" 100% word'


def realized(programs: list[Program], folder: Path) -> ServerOptions:
    """What supervisord itself makes of the configuration."""
    (folder / "log").mkdir()
    file = folder / "supervisord.conf"
    file.write_text(render(programs, home=folder, root=folder))
    options = ServerOptions()
    options.realize(["-c", str(file)])
    return options


def test_supervisord_reads_commands_and_variables_as_they_were_meant(tmp_path: Path) -> None:
    program = Program(name="web", command=("python", "a b", AWKWARD), environ={"OPTIONS": "-x 1 %i +y", "EMPTY": ""})

    options = realized([program], tmp_path)

    (read,) = (process for group in options.process_group_configs for process in group.process_configs)
    assert read.environment == {"OPTIONS": "-x 1 %i +y", "EMPTY": ""}
    assert read.command == f"python 'a b' '{AWKWARD}'"


def test_programs_are_restarted_whatever_ends_them() -> None:
    parser = RawConfigParser()
    parser.read_string(render([Program(name="web", command=("true",))], home=Path("/h"), root=Path("/r")))

    assert parser["program:web"]["autorestart"] == "true"


def test_what_others_need_starts_before_them_and_ends_after_them(tmp_path: Path) -> None:
    broker = Program(name="broker", command=("true",), group="services")
    users = [Program(name=name, command=("true",)) for name in ("worker", "web")]

    options = realized([broker, *users], tmp_path)

    groups = [[process.name for process in group.process_configs] for group in sorted(options.process_group_configs)]
    assert groups == [["broker"], ["worker", "web"]]


def test_folders_may_have_spaces_in_their_names(tmp_path: Path) -> None:
    home = tmp_path / "with space"
    home.mkdir()

    options = realized([Program(name="web", command=("true",))], home)

    assert options.logfile == str(home / "log" / "supervisord.log")


def test_a_folder_that_supervisord_could_not_log_to_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="%"):
        render([], home=Path("/srv/100%/.shepherd"), root=Path("/srv/100%"))
