# docker build --target server .      the service, and every command that needs no PyTorch
# docker build --target recorder .    the same with PyTorch, and the sampler that is recorded
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY archive_schema ./archive_schema
COPY clients ./clients
COPY examples ./examples
COPY recorder ./recorder
COPY server ./server
# The wheel that users install, into an environment that the last stages take over whole.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/trace-archive \
    && pip --python /opt/trace-archive install --no-cache-dir "$(echo /wheels/*.whl)[all]"

FROM build AS build-recorder
# An index of builds without CUDA, if there is one at hand; by default, the usual one.
ARG TORCH_INDEX_URL=""
# The version is the one that the tests pin.
# hadolint ignore=DL3013
RUN torch="$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)" \
    && pip --python /opt/trace-archive install --no-cache-dir \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "${torch:?no pinned torch}"

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="trace-archive" \
      org.opencontainers.image.description="Record every step of a generative sampler as it happens, and serve any slice of it over HTTP." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/trace-archive/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, which orchestrators can tell from root; the folder is its own, so a volume over it is too.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/trace-archive trace-archive
WORKDIR /var/lib/trace-archive
USER 10001:10001
ENTRYPOINT ["trace-archive"]

FROM runtime AS recorder
COPY --from=build-recorder /opt/trace-archive /opt/trace-archive
COPY examples /opt/trace-archive/examples
ENTRYPOINT ["python", "/opt/trace-archive/examples/record_d3_dna.py"]

FROM runtime AS server
COPY --from=build /opt/trace-archive /opt/trace-archive
# A folder named `server` in a volume must not be imported in place of the package.
ENV PYTHONSAFEPATH=1
EXPOSE 8000
# Whether the process answers; a store that is away is no reason to end it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["serve"]
