# The broker, and the command line: not root, and at home on a read-only file system.
FROM debian:bookworm-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/sparkbroker
COPY requirements/broker.txt /src/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/sparkbroker/bin/pip install --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement /src/requirements/broker.txt
COPY pyproject.toml README.md LICENSE /src/
COPY protos /src/protos
COPY client /src/client
COPY airflow_provider /src/airflow_provider
COPY broker /src/broker
# The build backend is in the lock: nothing that isn't locked gets in. The image keeps neither it nor pip.
RUN /opt/sparkbroker/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation /src \
 && /opt/sparkbroker/bin/python -m compileall -q /opt/sparkbroker/lib \
 && /opt/sparkbroker/bin/pip uninstall --yes --quiet hatchling pip setuptools
COPY images/broker/drain /opt/sparkbroker/bin/

FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-minimal libpython3-stdlib tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 sparkbroker \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/sparkbroker --create-home --shell /usr/sbin/nologin sparkbroker
COPY --from=build /opt/sparkbroker /opt/sparkbroker
ENV PATH=/opt/sparkbroker/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/sparkbroker
ENTRYPOINT ["tini", "--", "sparkbroker"]
CMD ["serve"]
