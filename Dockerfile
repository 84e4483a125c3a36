# docker build --target cpu --tag packed-esm:cpu .      (or cuda; docs/conda.md has how to run them, also with Apptainer)
# The packages have the versions of envs/constraints.txt; `esmc` adds transformers, with which ESM C is compared.
FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Any user may run the image (docker run --user), so home and working directory are open to all, and USER is set for
# programs that ask for the name of a user who has none.
ENV HOME=/home/embed USER=embed
RUN useradd --uid 1000 --create-home embed && mkdir /data && chmod 1777 /home/embed /data
WORKDIR /data
COPY envs/constraints.txt /opt/constraints.txt

# torch of PyPI, with CUDA's libraries; the driver comes from the machine. Triton compiles its launcher with gcc.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install -c /opt/constraints.txt "$(echo /wheels/*.whl)[esmc]"
USER embed
ENTRYPOINT ["packed-esm"]

# With --build-arg TORCH_INDEX=URL torch comes from PyTorch's index of CPU wheels: without CUDA, a tenth of the size.
FROM base AS cpu
ARG TORCH_INDEX=""
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /opt/constraints.txt)"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install -c /opt/constraints.txt "$(echo /wheels/*.whl)[esmc]"
USER embed
ENTRYPOINT ["packed-esm"]
