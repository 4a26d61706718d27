# Three images from one file:
#   docker build --target service     -t planish-service .      API and CLI, without torch
#   docker build --target worker      -t planish-worker .       CPU worker
#   docker build --target worker-cuda -t planish-worker:cuda .  CUDA worker
# BASE is any Debian with python3 >= 3.11, its venv module and CA certificates.
ARG BASE=python:3.11-slim

FROM ${BASE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/planish/bin:$PATH PLANISH_DATA_DIR=/data
RUN python3 -m venv /opt/planish \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /data planish \
 && install -d -o planish -g planish -m 0700 /data
WORKDIR /app

FROM base AS source
COPY pyproject.toml README.md ./
COPY planish planish
COPY service service
COPY worker worker

FROM base AS service
RUN --mount=type=bind,from=source,source=/app,target=/src,rw pip install "/src[service]"
USER planish
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["planish"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]

# TORCH is one exact version. The CPU build comes from wherever pip is told to look (PIP_INDEX_URL,
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS at build time); the CUDA build is what PyPI carries.
FROM base AS worker-base
ARG TORCH=2.13.0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN --mount=type=bind,from=source,source=/app,target=/src,rw \
    pip install "torch==${TORCH}" \
 && pip install "/src[worker,openvino]" \
 && find /opt/planish -depth \( -name __pycache__ -o -path '*/torch/test' -o -path '*/torch/include' \) -exec rm -rf {} +
USER planish
VOLUME /data
# Healthy: the worker has registered itself in the ledger, which it does once it can start jobs.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python3", "-m", "planish.store.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["planish"]
CMD ["worker"]

FROM worker-base AS worker

FROM worker-base AS worker-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
