# Two stages: the first builds the wheel and installs it with what it needs, the second holds nothing else.
FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mj_mcp ./mj_mcp
COPY skills ./skills
RUN python -m venv /opt/mj-mcp \
    && /opt/mj-mcp/bin/pip install --constraint constraints.txt '.[otel,postgres,s3]' \
    && /opt/mj-mcp/bin/python -m compileall -q /opt/mj-mcp/lib

FROM python:3.12-slim

RUN groupadd --gid 10001 mj-mcp \
    && useradd --no-log-init --no-create-home --uid 10001 --gid mj-mcp --home-dir /data --shell /usr/sbin/nologin mj-mcp \
    && install -d -o mj-mcp -g mj-mcp -m 0700 /data
COPY --from=build /opt/mj-mcp /opt/mj-mcp

# MJ_PUBLIC_URL is the address by which callers reach the container: set your own, as deploy/compose.yaml does.
ENV PATH=/opt/mj-mcp/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MJ_DATA_DIR=/data MJ_OUTPUT_DIR=/data/saved MJ_LOG_FORMAT=json \
    MJ_PUBLIC_URL=http://localhost:8080
USER 10001:10001
VOLUME ["/data", "/tmp"]
EXPOSE 8080
# A stop waits up to 20 s for submits in flight, so that what was charged is recorded: give it 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
CMD ["mj-mcp", "serve", "--http", "--host", "0.0.0.0", "--port", "8080", "--stateless"]
