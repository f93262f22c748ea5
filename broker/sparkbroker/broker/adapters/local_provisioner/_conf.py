"""The Spark configuration and the JVM's arguments of a driver. Pure: values in, values out.

Who wins: a key that sizes, binds or places the driver is the broker's; of the others the profile's value wins over the
holder's, and both over the broker's defaults.
"""

import ipaddress
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sparkbroker.broker.adapters.local_provisioner._toolchain import Toolchain
from sparkbroker.broker.domain.asking.conf import jar_uri
from sparkbroker.broker.domain.asking.sizing import container, is_single_process, single_process
from sparkbroker.broker.domain.capacity.resources import MIB, format_memory
from sparkbroker.broker.domain.errors import ProvisionerFailed
from sparkbroker.broker.ports.provisioner import DriverRequest

LOOPBACK: Final = "127.0.0.1"
MAIN_CLASS: Final = "org.apache.spark.sql.connect.service.SparkConnectServer"
SMALLEST_HEAP: Final = 480 * MIB
"""Spark refuses to start in less than 450 MiB, as the JVM counts it, which is less than -Xmx."""

_OPENED: Final = (
    *(
        f"java.base/{package}"
        for package in (
            "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util",
            "java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref", "sun.nio.ch", "sun.nio.cs",
            "sun.security.action", "sun.util.calendar",
        )
    ),
    "java.security.jgss/sun.security.krb5",
)  # fmt: skip

JVM_OPTIONS: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    # Without it netty does without Unsafe on Java 24 and newer, and Arrow's allocator needs it.
    "-Dio.netty.noUnsafe=false",
    "-Djdk.reflect.useDirectMethodHandle=false",
)
"""Those of Spark's own launcher, less the incubating vector module, which slows the start and some JDKs lack."""

_DEFAULTS: Final = {
    # The broker ends sessions with their attachments; Spark's own timeout would end an idle notebook's.
    "spark.connect.session.manager.defaultSessionTimeout": "-1",
}
_QUIET: Final = Path(__file__).with_name("log4j2-quiet.properties").absolute()
_JAVA_OPTIONS: Final = ("spark.driver.defaultJavaOptions", "spark.driver.extraJavaOptions")
"""What Spark's launcher makes of these isn't done by ``java``; the last one wins there."""
_EXECUTOR_OPTIONS: Final = "spark.executor.defaultJavaOptions"
CLASS_PATH: Final = "spark.driver.extraClassPath"
LIBRARY_PATH: Final = "spark.driver.extraLibraryPath"


def heap(request: DriverRequest) -> int:
    """Bytes of -Xmx. Raise ProvisionerFailed (misconfigured) if Spark can't start in it."""
    spec = request.spec
    size = single_process(spec) if is_single_process(spec, request.profile) else container(spec.driver)
    if size.heap < SMALLEST_HEAP:
        raise _wrong(f"driver.memory: {format_memory(size.heap)} is too small; Spark needs at least 480m")
    return size.heap


def properties(request: DriverRequest, scratch: Path, jars: tuple[str, ...]) -> dict[str, str]:
    """The driver's ``spark.*`` properties."""
    given = {**_DEFAULTS, **request.spec.conf, **request.profile.conf}
    for key in given:
        if not key.startswith("spark."):
            raise _wrong(f"conf {key!r}: Spark reads only keys that begin with spark.; write spark.hadoop.{key}")
    host = driver_host(request.profile.master)
    result = {
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.app.name": f"sparkbroker {request.driver_id}",
        **{key: value for key, value in given.items() if not key.startswith(("spark.jars", "spark.jars."))},
        "spark.local.dir": str(scratch / "local"),
        "spark.driver.memory": format_memory(heap(request)),
        "spark.driver.host": given.get("spark.driver.host", host),
        "spark.driver.bindAddress": given.get("spark.driver.bindAddress", host),
        "spark.connect.grpc.binding.address": LOOPBACK,
        "spark.connect.grpc.binding.port": "0",
        "spark.ui.enabled": str(request.profile.ui).lower(),
        "spark.ui.port": "0",
        **_placement(request),
    }
    if jars:
        result["spark.jars"] = ",".join(map(jar_uri, jars))
    return result


def _placement(request: DriverRequest) -> dict[str, str]:
    """The master and the sizes of what it runs."""
    spec, master = request.spec, request.profile.master
    if is_single_process(spec, request.profile):
        return {"spark.master": f"local[{single_process(spec).threads}]"}
    if spec.executors is None:
        raise _wrong(f"executors: profile {request.profile.name!r} has the master {master}, which needs at least one")
    size, count = spec.executors.size, spec.executors.max_count
    if master.startswith("local-cluster"):
        master = f"local-cluster[{count},{size.cores},{-(-size.memory // MIB)}]"
    return {
        "spark.master": master,
        "spark.driver.cores": str(spec.driver.cores),
        "spark.executor.cores": str(size.cores),
        "spark.executor.memory": format_memory(size.memory),
        "spark.executor.instances": str(count),
        "spark.cores.max": str(count * size.cores),
    }


def driver_host(master: str) -> str:
    """The address at which executors find the driver: loopback, unless the master is on another machine."""
    if not master.startswith("spark://"):
        return LOOPBACK
    parts = urlsplit(master.partition(",")[0])
    if parts.hostname is None or _is_loopback(parts.hostname):
        return LOOPBACK
    try:
        family, kind, _, _, address = socket.getaddrinfo(parts.hostname, parts.port or 7077, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: asks the kernel for the route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ProvisionerFailed(f"the profile's master {master} can't be reached: {error}", retryable=True) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def jvm_arguments(
    request: DriverRequest,
    tools: Toolchain,
    scratch: Path,
    jars: tuple[str, ...],
    archive: tuple[str, ...],
    user: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """All of java's arguments. What isn't Spark's own stands at the end of the class path: the archive stays valid.

    ``user``: those that a JVM needs on this machine for a user without a name.
    """
    conf = properties(request, scratch, jars)
    if user and request.profile.master.startswith("local-cluster"):
        conf[_EXECUTOR_OPTIONS] = " ".join(filter(None, [shlex.join(user), conf.get(_EXECUTOR_OPTIONS, "")]))
    class_path = [*tools.spark.jars, *(path.removeprefix("file:") for path in jars)]
    class_path += [path for path in conf.get(CLASS_PATH, "").split(":") if path]
    return (
        f"-Xmx{format_memory(heap(request))}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        *archive,
        *user,
        *JVM_OPTIONS,
        f"-Djava.io.tmpdir={scratch}",
        *_logging(conf),
        *(f"-D{key}={value}" for key, value in conf.items()),
        *java_options(conf),
        "-cp",
        ":".join(class_path),
        MAIN_CLASS,
    )


def java_options(conf: Mapping[str, str]) -> list[str]:
    """A profile's own, in the order in which the last wins. Raise ProvisionerFailed (misconfigured) where a quote isn't closed."""
    found = list[str]()
    for key in _JAVA_OPTIONS:
        try:
            found += shlex.split(conf.get(key, ""))
        except ValueError as error:
            raise _wrong(f"conf {key!r}: {error}; quote options as a shell would") from error
    return found


def _logging(conf: Mapping[str, str]) -> tuple[str, ...]:
    """Spark's own settings, and ours on top of them; a profile's Java options stand after it, and win."""
    if conf.get("spark.log.structuredLogging.enabled", "").lower() == "true":
        return ()  # Spark then has other settings of its own
    return (f"-Dlog4j2.configurationFile=classpath:org/apache/spark/log4j2-defaults.properties,{_QUIET.as_uri()}",)


def argument_file(arguments: tuple[str, ...]) -> bytes:
    """As ``java @file`` reads it: each argument in quotes, with backslashes for what is special in them."""
    lines = []
    for argument in arguments:
        escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
        escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\f", "\\f")
        lines.append(f'"{escaped}"\n')
    return "".join(lines).encode()


def _wrong(message: str) -> ProvisionerFailed:
    return ProvisionerFailed(message, retryable=False, misconfigured=True)
