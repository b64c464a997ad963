# One image for every command. Runs as nobody in particular, on a read-only file system.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python -m venv /opt/engagement
COPY deploy/requirements.lock deploy/requirements.lock
RUN /opt/engagement/bin/pip install --require-hashes --no-deps -r deploy/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY db db
COPY streams streams
# What builds is not needed to run.
RUN /opt/engagement/bin/pip install --no-deps --no-build-isolation . \
    && /opt/engagement/bin/pip uninstall -y hatchling trove-classifiers pathspec pluggy pip setuptools

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Engagement scoring" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/engagement /opt/engagement
ENV PATH=/opt/engagement/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["engagement"]
CMD ["--help"]
