# ppo-jax-tune in a container; studies go to /runs, compiled programs to /cache.
#
#   docker build --target cpu --tag ppo-jax-tune .
#   docker build --target cuda --tag ppo-jax-tune:cuda .
#   docker run --rm --volume "$PWD/runs:/runs" --volume ppo-jax-cache:/cache ppo-jax-tune --quick
#   docker run --rm --gpus all --volume "$PWD/runs:/runs" ppo-jax-tune:cuda --env Acrobot-v1
#
# CUDA comes with JAX's wheels, so both stages stand on the same image; the host needs a driver.

FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 JAX_COMPILATION_CACHE_DIR=/cache
WORKDIR /source
COPY constraints.txt ./
COPY pyproject.toml README.md LICENSE ./
COPY ppo_jax ppo_jax
COPY tune tune
RUN useradd --create-home user && mkdir /runs /cache && chown user /runs /cache
# Results are in /runs/STUDY, not /runs/runs/STUDY.
WORKDIR /
ENTRYPOINT ["ppo-jax-tune"]
CMD ["--help"]

FROM base AS cuda
RUN pip install --constraint /source/constraints.txt '/source[cuda,postgres]'
USER user

FROM base AS cpu
RUN pip install --constraint /source/constraints.txt '/source[postgres]'
USER user
