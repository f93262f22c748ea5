"""The Spark configuration, packages and jars that a holder may bring.

The allow-list keeps honest users right; it is no security boundary, since whoever can run code in a driver is that
driver. Three rules, in this order:

* What the broker itself decides (sizes, ports, tokens, the master) is refused always: the field of the API to use
  instead is named.
* What loads code or opens the driver is refused unless the profile's allow-list has the *exact* key: a prefix
  doesn't open it.
* Everything else needs an exact key or a prefix on the allow-list.

Keys by which Spark mounts volumes and Secrets into executors are bounded by ``pods.bounds`` besides.
"""

import re
from typing import Final
from urllib.parse import quote

from sparkbroker.broker.domain.asking.profile import Profile
from sparkbroker.broker.domain.errors import InvalidField
from sparkbroker.broker.domain.pods.bounds import check_conf_within
from sparkbroker.broker.domain.text import shown

MAX_CONF_KEYS: Final = 200
MAX_CONF_BYTES: Final = 64 * 1024
MAX_DEPENDENCIES: Final = 100
MAX_DEPENDENCY: Final = 1024

_KEY: Final = re.compile(r"spark\.[A-Za-z0-9_./-]*[A-Za-z0-9_]")
_FORBIDDEN_CHARACTER: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_PACKAGE: Final = re.compile(f"{_PART}[:/]{_PART}[:/]{_PART}")
_CLASSIFIED: Final = re.compile(f"{_PART}(?:[:/]{_PART}){{3,4}}")
_JAR_URL: Final = re.compile(r"(?:https?|s3a|gs|abfss?|hdfs|viewfs|file)://[^\s,]+")
_JAR_PATH: Final = re.compile(r"/[^\s,]+")

_SIZE: Final = "the broker makes it from the size that was asked for: use {}"
_BROKERS: Final = "the broker sets it itself"

USE_INSTEAD: Final[tuple[tuple[str, str], ...]] = (
    ("spark.driver.cores", _SIZE.format("driver.cores")),
    ("spark.driver.memory", _SIZE.format("driver.memory")),
    ("spark.driver.memoryOverhead*", _SIZE.format("driver.memory_overhead")),
    ("spark.driver.minMemoryOverhead", _SIZE.format("driver.memory_overhead")),
    ("spark.executor.cores", _SIZE.format("executors.size.cores")),
    ("spark.cores.max", _SIZE.format("executors.max_count and executors.size.cores")),
    ("spark.executor.memory", _SIZE.format("executors.size.memory")),
    ("spark.executor.memoryOverhead*", _SIZE.format("executors.size.memory_overhead")),
    ("spark.executor.minMemoryOverhead", _SIZE.format("executors.size.memory_overhead")),
    ("spark.executor.pyspark.memory", _SIZE.format("executors.size.memory_overhead")),
    ("spark.memory.offHeap.*", _SIZE.format("driver.memory or driver.memory_overhead")),
    ("spark.executor.instances", _SIZE.format("executors.max_count")),
    ("spark.dynamicAllocation.minExecutors", _SIZE.format("executors.min_count")),
    ("spark.dynamicAllocation.maxExecutors", _SIZE.format("executors.max_count")),
    ("spark.dynamicAllocation.initialExecutors", _SIZE.format("executors.min_count")),
    ("spark.jars", "use jars"),
    ("spark.jars.packages", "use packages"),
    ("spark.master", "it belongs to the profile: use profile"),
    ("spark.remote", _BROKERS),
    ("spark.submit.*", "no spark-submit is run: use packages, jars and the profile"),
    ("spark.driver.host", _BROKERS),
    ("spark.driver.port", _BROKERS),
    ("spark.driver.bindAddress", _BROKERS),
    ("spark.connect.grpc.binding.*", _BROKERS),
    ("spark.connect.authenticate.*", _BROKERS),
)

EXACT_ONLY: Final[tuple[str, ...]] = (
    "spark.kubernetes.*", "spark.jars.*", "spark.files", "spark.archives", "spark.connect.*", "spark.plugins*",
    "spark.extraListeners", "spark.ui.*", "spark.driver.*ClassPath*", "spark.executor.*ClassPath*",
    "spark.driver.*JavaOptions", "spark.executor.*JavaOptions", "spark.driver.*LibraryPath",
    "spark.executor.*LibraryPath", "spark.*.extraClassPath", "spark.*.extraJavaOptions", "spark.executorEnv.*",
    "spark.pyspark.*", "spark.python.daemon.module", "spark.python.worker.module", "spark.local.dir",
    "spark.authenticate*", "spark.ssl.*", "spark.acls.*", "spark.admin.acls*", "spark.modify.acls*",
    "spark.redaction.*", "spark.driver.resource.*", "spark.executor.resource.*", "spark.dynamicAllocation.*",
    "spark.sql.extensions", "spark.sql.queryExecutionListeners", "spark.sql.streaming.streamingQueryListeners",
    "spark.sql.catalogImplementation", "spark.metrics.conf*", "spark.blockManager.port",
)  # fmt: skip


def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(p).replace(r"\*", ".*") for p in patterns))


_USE_INSTEAD_COMPILED: Final = tuple((_pattern((pattern,)), words) for pattern, words in USE_INSTEAD)
_EXACT_ONLY_COMPILED: Final = _pattern(EXACT_ONLY)


def check_conf(conf: dict[str, str], profile: Profile) -> dict[str, str]:
    """The holder's conf, unchanged. Raise InvalidField naming ``spec.conf`` and the key."""
    if len(conf) > MAX_CONF_KEYS:
        raise InvalidField("spec.conf", f"{len(conf)} keys", f"at most {MAX_CONF_KEYS} are taken")
    size = sum(len(key) + len(value) for key, value in conf.items())
    if size <= MAX_CONF_BYTES:
        size = sum(len(text.encode("utf-8", "surrogatepass")) for item in conf.items() for text in item)
    if size > MAX_CONF_BYTES:
        raise InvalidField("spec.conf", f"{size} bytes", f"at most {MAX_CONF_BYTES} are taken")
    for key, value in conf.items():
        _check_key(key, profile)
        _check_value(key, value)
    if profile.provisioner == "kubernetes":
        check_conf_within(conf, profile.pod_bounds, "spec.conf")
    return conf


def check_unset_conf(unset: tuple[str, ...], conf: dict[str, str], profile: Profile) -> frozenset[str]:
    """The keys that the lease goes without. Raise InvalidField naming ``spec.unset_conf`` and the key."""
    if len(unset) > MAX_CONF_KEYS:
        raise InvalidField("spec.unset_conf", f"{len(unset)} keys", f"at most {MAX_CONF_KEYS} are taken")
    for key in unset:
        _check_key(key, profile, "spec.unset_conf")
        if key in conf:
            raise InvalidField(f"spec.unset_conf[{shown(key, 80)}]", "is in conf as well", "say either, not both")
    return frozenset(unset)


def _check_key(key: str, profile: Profile, whose: str = "spec.conf") -> None:
    field = f"{whose}[{shown(key, 80)}]"
    if _KEY.fullmatch(key) is None:
        raise InvalidField(field, "is not the key of a Spark configuration", 'it must begin with "spark."')
    for pattern, words in _USE_INSTEAD_COMPILED:
        if pattern.fullmatch(key):
            raise InvalidField(field, "can't be set by a holder", words)
    if key in profile.conf:
        raise InvalidField(field, f"is set by profile `{profile.name}`", "leave it out, or use another profile")
    if key in profile.allowed_conf:
        return
    if _EXACT_ONLY_COMPILED.fullmatch(key):
        problem = "can load code into the driver or open it to others"
        raise InvalidField(field, problem, f"an operator has to allow this exact key in profile `{profile.name}`")
    if not any(entry.endswith("*") and key.startswith(entry[:-1]) for entry in profile.allowed_conf):
        allowed = ", ".join(profile.allowed_conf[:20]) or "none"
        problem = f"is not allowed by profile `{profile.name}`"
        raise InvalidField(field, problem, f"allowed are: {allowed}{', …' if len(profile.allowed_conf) > 20 else ''}")


def _check_value(key: str, value: str) -> None:
    field = f"spec.conf[{shown(key, 80)}]"
    if "${" in value:
        raise InvalidField(field, 'its value holds "${"', "write the value itself: variables are not substituted")
    if _FORBIDDEN_CHARACTER.search(value):
        raise InvalidField(field, "its value holds a newline or another control character", "write it in one line")


def check_packages(packages: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Maven coordinates, as group:artifact:version; Spark takes slashes for the colons, too. Raise InvalidField."""
    _check_allowed(packages, profile, "spec.packages")
    for index, package in enumerate(packages):
        if len(package) <= MAX_DEPENDENCY and _CLASSIFIED.fullmatch(package):
            problem = (
                f"{shown(package, 80)} has a classifier or a packaging, which Spark's resolver of packages doesn't take"
            )
            raise InvalidField(
                f"spec.packages[{index}]", problem, "write group:artifact:version, or give that jar's URL in jars"
            )
        if len(package) > MAX_DEPENDENCY or _PACKAGE.fullmatch(package) is None:
            expected = 'write group:artifact:version, as "org.apache.spark:spark-avro_2.13:4.0.0"'
            raise InvalidField(f"spec.packages[{index}]", f"{shown(package, 80)} is not a Maven coordinate", expected)
    return coordinates(packages)


def coordinates(packages: tuple[str, ...]) -> tuple[str, ...]:
    """As group:artifact:version."""
    return tuple(package.replace("/", ":") for package in packages)


def check_jars(jars: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Absolute paths and URLs, unchanged. Raise InvalidField."""
    _check_allowed(jars, profile, "spec.jars")
    for index, jar in enumerate(jars):
        fits = _JAR_URL.fullmatch(jar) or _JAR_PATH.fullmatch(jar)
        if len(jar) > MAX_DEPENDENCY or fits is None or "${" in jar or not jar.isprintable():
            expected = "write an absolute path, or a URL with http(s), s3a, gs, abfs(s), hdfs, viewfs or file"
            raise InvalidField(f"spec.jars[{index}]", f"{shown(jar, 80)} is not the place of a jar", expected)
    return jars


def jar_uri(jar: str) -> str:
    """A checked jar as an entry of ``spark.jars``: Spark takes a path with a % or a # in it for a URI."""
    return f"file://{quote(jar)}" if jar.startswith("/") and quote(jar) != jar else jar


def _check_allowed(items: tuple[str, ...], profile: Profile, field: str) -> None:
    if not items:
        return
    if profile.provisioner == "static":
        problem = f"profile `{profile.name}` has endpoints that run already"
        raise InvalidField(field, problem, "leave it unset, or use another profile")
    if not profile.allow_packages:
        problem = f"profile `{profile.name}` takes no packages or jars from holders"
        raise InvalidField(field, problem, "leave it unset, or use another profile")
    if len(items) > MAX_DEPENDENCIES:
        raise InvalidField(field, f"{len(items)} entries", f"at most {MAX_DEPENDENCIES} are taken")
