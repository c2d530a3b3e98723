"""The list of services: variables as compose fills them in, native forms, the order of starting."""

from pathlib import Path

import pytest
import yaml

from service.errors import InputError
from stemstream.compose import COMPOSE_FILE, NATIVE, ServiceList, read_services, substitute
from stemstream.count_options import CountOptions

NEEDED = {"STEMSTREAM_BACKGROUND": "40", "STEMSTREAM_XRAY": "2000", "STEMSTREAM_OUTPUT": "/counted/here"}


@pytest.fixture
def list_of(tmp_path: Path) -> Path:
    return tmp_path / "compose.yml"


def read(file: Path, text: str, **variables: str) -> ServiceList:
    file.write_text(text)
    return read_services(file, variables)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$SET and ${SET}", "value and value"),
        ("a${SET}b$SET-c", "avaluebvalue-c"),
        ("$EMPTY|${EMPTY}|$UNSET|${UNSET}", "|||"),
        ("${SET:-other}|${EMPTY:-other}|${UNSET:-other}", "value|other|other"),
        ("${SET-other}|${EMPTY-other}|${UNSET-other}", "value||other"),
        ("${SET:?why}|${SET?why}|${EMPTY?why}", "value|value|"),
        ("${SET:+other}|${EMPTY:+other}|${UNSET:+other}", "other||"),
        ("${SET+other}|${EMPTY+other}|${UNSET+other}", "other|other|"),
        ("${UNSET:-}", ""),
        ("${UNSET:-tcp://127.0.0.1:6001}", "tcp://127.0.0.1:6001"),
        ("${UNSET:-${SET}/x}", "value/x"),
        ("${UNSET:-${EMPTY:-inner}}", "inner"),
        ("$$SET $${SET} 5$$", "$SET ${SET} 5$"),
        ("{SET}", "{SET}"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    assert substitute(text, {"SET": "value", "EMPTY": ""}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${UNSET:?say how many}", "UNSET is not set: say how many"),
        ("${UNSET?}", "UNSET is not set: it has no default"),
        ("${EMPTY:?say how many}", "EMPTY is not set: say how many"),
        ("${UNSET:?not ${SET}}", "UNSET is not set: not value"),
    ],
)
def test_a_missing_variable_is_refused_with_its_message(text: str, expected: str) -> None:
    with pytest.raises(InputError, match=f"^{expected}$"):
        substitute(text, {"SET": "value", "EMPTY": ""})


@pytest.mark.parametrize("text", ["$", "5$ a piece", "${", "${}", "${SET", "${1}", "${SET:}", "${SET!}"])
def test_a_dollar_that_begins_no_variable_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"a \$ that begins no variable"):
        substitute(text, {"SET": "value"})


def test_every_service_of_the_project_has_a_native_form_or_is_named_as_left_out() -> None:
    services = read_services(COMPOSE_FILE, NEEDED)
    listed = list(yaml.safe_load(COMPOSE_FILE.read_text())["services"])
    native = [service.name for service in services.native]
    assert sorted(native + services.left_out) == sorted(listed)
    assert {"kafka", "topics", "receiver", "counter", "sink"} <= set(native)


def test_the_services_start_after_those_they_depend_on() -> None:
    stages = [[service.name for service in stage] for stage in read_services(COMPOSE_FILE, NEEDED).stages()]
    assert stages[:2] == [["kafka"], ["topics"]]
    assert stages[2][:3] == ["receiver", "counter", "sink"]  # stopped in this order


def test_the_native_values_are_those_of_this_machine() -> None:
    services = {service.name: service for service in read_services(COMPOSE_FILE, NEEDED).native}
    assert services["kafka"].embedded_broker
    assert services["topics"].once
    assert [name for name, service in services.items() if service.once] == ["topics"]
    assert services["receiver"].command[-2:] == ("--from", "tcp://127.0.0.1:6001")
    assert services["receiver"].environment["STEMSTREAM_READY"] == "tcp://127.0.0.1:16000"
    assert services["sink"].environment["STEMSTREAM_OUTPUT"] == "/counted/here"
    assert services["counter"].environment["STEMSTREAM_BACKGROUND"] == "40"


def test_the_metrics_ports_of_the_services_are_different() -> None:
    many = read_services(COMPOSE_FILE, NEEDED | {"STEMSTREAM_COUNTERS": "64"})
    ports = [s.metrics_port + index for s in many.native if s.metrics_port for index in range(s.replicas)]
    assert len(set(ports)) == len(ports) == 66


def test_a_variable_without_default_is_asked_for() -> None:
    with pytest.raises(InputError, match="STEMSTREAM_OUTPUT is not set: set it to the"):
        read_services(COMPOSE_FILE, {name: value for name, value in NEEDED.items() if name != "STEMSTREAM_OUTPUT"})


def test_every_option_of_a_count_reaches_the_counter() -> None:
    options = CountOptions(
        auto_threshold=True,
        threshold_samples=300,
        threshold_blocks=7,
        background_sigmas=4.25,
        xray_sigmas=150.0,
        dark=Path("/references/dark.npy"),
        gain=Path("/references/gain.dm4"),
        row_dark="median",
        optimized_mean=12.5,
        engine="stempy",
    )
    variables = options.variables() | {"STEMSTREAM_OUTPUT": "/counted/here"}
    services = {service.name: service for service in read_services(COMPOSE_FILE, variables).native}
    assert CountOptions.from_variables(services["counter"].environment) == options


def test_fixed_thresholds_reach_the_counter_exactly() -> None:
    options = CountOptions(background=0.1 + 0.2, xray=1e-7)
    services = read_services(COMPOSE_FILE, options.variables() | {"STEMSTREAM_OUTPUT": "/counted/here"}).native
    environment = next(service.environment for service in services if service.name == "counter")
    assert CountOptions.from_variables(environment) == options


def test_labels_replace_what_makes_sense_in_a_container_only(list_of: Path) -> None:
    text = f"""
    services:
      writer:
        command: ["write", "--to", "/data"]
        environment: {{PLACE: /data, NUMBER: 7, FROM_SHELL: }}
        labels:
          {NATIVE}: process
          {NATIVE}.command: write --to "${{HERE}} and there"
          {NATIVE}.environment.PLACE: $HERE
          {NATIVE}.metrics-port: 9105
        deploy: {{replicas: "${{MANY:-3}}"}}
      reader:
        command: read
        labels: {{{NATIVE}: process}}
        depends_on: {{writer: {{condition: service_completed_successfully}}}}
    """
    writer, reader = read(list_of, text, HERE="/data/x").native
    assert writer.command == ("write", "--to", "/data/x and there")
    assert writer.environment == {"PLACE": "/data/x", "NUMBER": "7"}
    assert (writer.replicas, writer.metrics_port, writer.once) == (3, 9105, True)
    assert (reader.replicas, reader.metrics_port, reader.once) == (1, 0, False)


def test_a_service_without_the_label_is_left_out_and_its_variables_are_not_needed(list_of: Path) -> None:
    text = f"""
    services:
      graphs: {{image: grafana, environment: {{PASSWORD: "${{PASSWORD:?choose one}}"}}, labels: {{other: thing}}}}
      prometheus: {{image: prometheus}}
      writer: {{command: write, labels: {{{NATIVE}: process}}, depends_on: [prometheus]}}
    """
    services = read(list_of, text)
    assert [service.name for service in services.native] == ["writer"]
    assert services.left_out == ["graphs", "prometheus"]
    assert services.stages() == [services.native]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no compose file"),
        ("services: []", "no compose file"),
        ("services: {a: 1}", "no compose file"),
        ("services: {a", "while parsing"),
        (f"services: {{a: {{labels: {{{NATIVE}: perhaps}}}}}}", "service a: labels.*process"),
        (f"services: {{a: {{labels: {{{NATIVE}: process, {NATIVE}.metrics-port: x}}}}}}", "service a: labels.*integer"),
        (f"services: {{a: {{labels: {{{NATIVE}: process}}, deploy: {{replicas: 0}}}}}}", "service a: deploy.replicas"),
        (f"services: {{a: {{labels: {{{NATIVE}: process}}, command: '${{B:?give b}}'}}}}", "service a: B is not set"),
        (f"services: {{a: {{labels: {{{NATIVE}: process}}, depends_on: [a]}}}}", "circle: a > a"),
    ],
)
def test_a_wrong_list_is_refused_in_one_clear_line(list_of: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=rf"compose\.yml: .*{expected}") as caught:
        read(list_of, text)
    assert caught.value.exit_code == 2


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yml: No such file"):
        read_services(tmp_path / "nowhere.yml", {})
