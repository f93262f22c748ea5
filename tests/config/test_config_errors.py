"""Everything wrong with a file is said at once, with the field's path and what would be right."""

import textwrap

import pytest

from sparkbroker.broker.config import ConfigError, load_config


@pytest.fixture
def problems(tmp_path):
    """Load a file; the sentences about it."""

    def load(text, env=None):
        path = tmp_path / "broker.toml"
        path.write_text(textwrap.dedent(text))
        with pytest.raises(ConfigError) as caught:
            load_config(path, {"HOME": "/nobody", **(env or {})})
        assert str(caught.value).startswith(f"{path}: ")
        return [str(problem) for problem in caught.value.problems]

    return load


WRONG = {
    "unknown section": ("[serber]", "serber: there is no such key; did you mean server?"),
    "unknown key": (
        "[server]\nlisen = []",
        "server.lisen: there is no such key; did you mean server.listen?",
    ),
    "unknown key of a profile's table": (
        "[profiles.small.executors]\nmx_count = 3",
        "profiles.small.executors.mx_count: there is no such key; did you mean profiles.small.executors.max_count?",
    ),
    "unlike any key": (
        "[capacity.local]\nwombats = 3",
        "capacity.local.wombats: there is no such key; known are cpu, memory",
    ),
    "duration": (
        '[leases]\nttl = "30x"',
        'leases.ttl: \'30x\' is not a duration; write it as "30s", "5m", "2h", "7d", or a number of seconds',
    ),
    "duration of nothing": (
        "[leases]\nttl = 0",
        "leases.ttl: 0 is out of range; it must be more than 0 and at most ten years",
    ),
    "duration that is no number": (
        "[leases]\nttl = nan",
        'leases.ttl: nan is not a duration; write it as "30s", "5m", "2h", "7d", or a number of seconds',
    ),
    "memory": (
        '[queues.etl]\nmemory = "2gg"',
        (
            "queues.etl.memory: '2gg' is not a memory size; write a whole number with k, m, g or t, such as \"2g\" or "
            '"1536m", at most 1024t'
        ),
    ),
    "label": (
        '[kubernetes]\nowner = "-me"',
        (
            "kubernetes.owner: '-me' is not a label's value; use at most 63 letters, digits, '-', '_' and '.', beginning and"
            " ending with a letter or digit"
        ),
    ),
    "cores": (
        "[queues.etl]\ncpu = -1",
        'queues.etl.cpu: \'-1\' is not a number of cores; write it as "8", "0.5" or "500m"',
    ),
    "infinite cores": (
        "[queues.etl]\ncpu = inf",
        'queues.etl.cpu: \'inf\' is not a number of cores; write it as "8", "0.5" or "500m"',
    ),
    "whole cores": (
        "[profiles.a.driver]\ncores = 1.5",
        "profiles.a.driver.cores: 1.5 is not a number of cores; it must be a whole number",
    ),
    "number": ("[leases]\nmax_queued = 0", "leases.max_queued: 0 is out of range; it must be at least 1"),
    "no number": (
        '[leases]\nmax_queued = "many"',
        "leases.max_queued: 'many' is not a whole number; write a whole number",
    ),
    "choice": (
        '[profiles.a]\nprovisioner = "locl"',
        "profiles.a.provisioner: 'locl' is not one of them; it must be 'local', 'static' or 'kubernetes'",
    ),
    "name": (
        "[queues.BIG]",
        (
            "queues.BIG: 'BIG' is not a name; use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning and ending with a letter"
            " or digit"
        ),
    ),
    "list": (
        '[profiles.a]\nqueues = "etl"',
        'profiles.a.queues: \'etl\' is not a list; write a list, such as ["a", "b"]',
    ),
    "table": ("server = 3", "server: 3 is not a table; write a table"),
    "address": (
        '[server]\nlisten = ["http://x"]',
        'server.listen[0]: \'http://x\' is not an address; write "unix:/path/broker.sock" or "tcp://127.0.0.1:7077"',
    ),
    "relative path": (
        '[store]\nstate_folder = "state"',
        "store.state_folder: 'state' is not an absolute path; begin it with / or ~",
    ),
    "open TCP": (
        '[server]\nlisten = ["tcp://127.0.0.1:7077"]',
        (
            "server.listen has tcp://127.0.0.1:7077, and server.tokens is not set: anybody could call; set server.tokens, or"
            " listen on a unix socket only"
        ),
    ),
    "TCP without TLS": (
        '[server]\nlisten = ["tcp://0.0.0.0:7077"]\ntokens = "/t"',
        (
            "server.listen has tcp://0.0.0.0:7077, which other machines can reach, without TLS; set server.tls_cert and"
            " server.tls_key, or listen on 127.0.0.1"
        ),
    ),
    "half of TLS": (
        '[server]\ntls_cert = "/c"',
        "server.tls_cert and server.tls_key belong together; set both or none",
    ),
    "ttl and wait_ttl": (
        '[leases]\nttl = "10m"',
        (
            "leases.wait_ttl (300s) is less than leases.ttl (600s): a waiting client, which renews every third of its ttl,"
            " could lose its place; leases.wait_ttl must be at least leases.ttl"
        ),
    ),
    "request_age and wait_ttl": (
        '[store]\nrequest_age = "1m"',
        (
            "store.request_age (60s) is less than leases.wait_ttl (300s): a request that is repeated while its lease waits"
            " would be a new one; store.request_age must be at least leases.wait_ttl"
        ),
    ),
    "profile's queue": (
        '[queues.etl]\n[profiles.a]\nqueues = ["elt"]',
        'profiles.a.queues[0]: "elt" is no queue in [queues]; did you mean etl?',
    ),
    "profile's pool": (
        '[profiles.a]\npool = "cluster"',
        'profiles.a.pool: "cluster" is no pool in [capacity]; known are local',
    ),
    "default queue": (
        '[queues.etl]\n[leases]\ndefault_queue = "elt"',
        'leases.default_queue: "elt" is no queue in [queues]; did you mean etl?',
    ),
    "no default queue": (
        "[queues.a]\n[queues.b]\n[profiles.p]",
        (
            'leases.default_queue: there are several queues, none is called "default", and profiles.p names none; set it to'
            " one of a, b"
        ),
    ),
    "pool without memory": (
        "[capacity.cluster]\ncpu = 8",
        "capacity.cluster.memory: it is missing; only the pool local has a default",
    ),
    "default over the limit": (
        "[profiles.a.driver]\ncores = 8\n[profiles.a.limits]\ndriver_cores = 4",
        (
            "profiles.a: driver.cores (8) is more than limits.driver_cores (4); limits.driver_cores must be at least"
            " driver.cores"
        ),
    ),
    "executors": (
        "[profiles.a.executors]\nmin_count = 3",
        "profiles.a.executors: max_count (1) is less than min_count (3); max_count must be at least min_count",
    ),
    "master with threads": (
        '[profiles.a]\nmaster = "local[4]"',
        "profiles.a.master: 'local[4]' fixes the threads; write \"local\": they are the lease's cores",
    ),
    "conf that is ours": (
        '[profiles.a.conf]\n"spark.master" = "local"',
        "profiles.a.conf.\"spark.master\": 'spark.master' is not yours to set here; set the profile's master",
    ),
    "wide allow-list": (
        '[profiles.a]\nallowed_conf = ["spark.sql.*"]',
        (
            "profiles.a.allowed_conf[0]: 'spark.sql.*' lets through keys that load code, name credentials or belong to the"
            ' broker; list exact keys, or a narrow prefix such as "spark.sql.adaptive.*"'
        ),
    ),
    "memory in parts of a MiB": (
        '[profiles.a.executors]\nmemory = "1500000k"',
        ("profiles.a.executors.memory: is not a whole number of MiB; use m, g or t"),
    ),
    "overhead in parts of a MiB": (
        '[profiles.a.driver]\nmemory_overhead = "1500k"',
        ("profiles.a.driver.memory_overhead: is not a whole number of MiB; use m, g or t"),
    ),
    "more executors than a request may have": (
        "[profiles.a.executors]\nmax_count = 10001",
        "profiles.a.executors.max_count: 10001 is out of range; it must be at most 10000",
    ),
    "package that is none": (
        '[profiles.a]\nallow_packages = false\npackages = ["org.example:a"]',
        (
            "profiles.a.packages[0]: 'org.example:a' is not a Maven"
            ' coordinate; write group:artifact:version, as "org.apache.spark:spark-avro_2.13:4.0.0"'
        ),
    ),
    "jar that is none": (
        '[profiles."a.b"]\njars = ["a.jar"]',
        (
            "profiles.\"a.b\".jars[0]: 'a.jar' is not the place of a jar;"
            " write an absolute path, or a URL with http(s), s3a, gs, abfs(s), hdfs, viewfs or file"
        ),
    ),
    "static without endpoints": (
        '[profiles.a]\nprovisioner = "static"',
        'profiles.a: provisioner is "static" and endpoints is empty; add one: [{ url = "sc://host:15002/" }]',
    ),
    "token in a URL": (
        '[profiles.a]\nprovisioner = "static"\nendpoints = [{ url = "sc://h/;token=secret" }]',
        "profiles.a.endpoints[0].url: the URL holds a secret; put the token into a file and name it as token_file",
    ),
    "endpoints of a local profile": (
        '[profiles.a]\nendpoints = [{ url = "sc://h/" }]',
        'profiles.a: endpoints is set and provisioner is "local"; set provisioner = "static"',
    ),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG)
def test_one_problem_is_told_with_its_field(problems, text, sentence):
    assert problems(text) == [sentence]


def test_every_profile_that_refuses_its_own_defaults_is_told(problems):
    told = problems('[profiles.a.driver]\nmemory = "1025k"\n[profiles.b]\njars = ["x"]\n[profiles.c]\n')
    assert [sentence.split(":")[0] for sentence in told] == ["profiles.a.driver.memory", "profiles.b.jars[0]"]


def test_all_problems_are_told_together(problems):
    assert len(problems('[leases]\nttl = "x"\nwait_ttl = "y"\n[server]\nlog_level = "loud"\n')) == 3


def test_a_value_from_the_environment_is_told_with_its_variable(problems):
    assert problems("", {"SPARKBROKER__LEASES__TTL": "soon"}) == [
        (
            "leases.ttl (from SPARKBROKER__LEASES__TTL): 'soon' is not a duration; "
            'write it as "30s", "5m", "2h", "7d", or a number of seconds'
        )
    ]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SPARKBROKER__SERVER__LISTEN", "[", "SPARKBROKER__SERVER__LISTEN: it is not a TOML value"),
        ("SPARKBROKER__", "x", "SPARKBROKER__: a part of the name is empty"),
        ("SPARKBROKER__A__B", "x", "SPARKBROKER__A__B: a is not a table"),
    ],
)
def test_a_bad_variable_is_named(problems, name, value, sentence):
    [said] = problems("a = 1", {name: value})
    assert said.startswith(sentence)


def test_a_value_of_conf_is_not_repeated(problems):
    [said] = problems('[profiles.a.conf]\n"spark.x" = ["hunter2"]')
    assert "hunter2" not in said
    assert said.startswith('profiles.a.conf."spark.x": the value is not text')


def test_a_file_that_is_not_toml_is_told_with_its_line(problems):
    [said] = problems("[server\n")
    assert said.startswith("the file: it is not TOML: ")
    assert "line 1" in said


def test_a_file_that_is_named_and_missing(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; create it, or name another with --config"):
        load_config(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(None, {"SPARKBROKER_CONFIG": str(tmp_path / "no.toml")})


def test_a_file_of_other_bytes(tmp_path):
    path = tmp_path / "broker.toml"
    path.write_bytes(b"a\xff")
    with pytest.raises(ConfigError, match=r"it is not UTF-8 \(byte 1\); save it as UTF-8"):
        load_config(path, {})


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(ConfigError, match="it can't be read: Is a directory"):
        load_config(tmp_path, {})


def test_a_state_folder_that_makes_the_default_socket_too_long(problems):
    [said] = problems(f'[store]\nstate_folder = "/{"x" * 100}"')
    assert said.startswith("store.state_folder makes the default socket's path 117 bytes long")
