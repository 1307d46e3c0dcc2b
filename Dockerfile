# One image for api and worker. TORCH_INDEX chooses the build of torch: empty takes the registry's default
# (CUDA); an index of CPU builds makes an image a few gigabytes smaller.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 dmft && mkdir -p /data && chown dmft /data
WORKDIR /app

ARG TORCH_INDEX=""
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY api api
COPY cli cli
COPY dmft_client dmft_client
COPY dmft_engine dmft_engine
COPY dmft_figures dmft_figures
COPY dmft_schema dmft_schema
COPY jobs jobs
COPY worker worker
RUN pip install --no-cache-dir -c constraints.txt '.[engine,server]'

USER dmft
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["dmft"]
