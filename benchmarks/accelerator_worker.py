"""Compiles the programs for a device that is not there. Started by :mod:`benchmarks.prediction`.

Runs in the environment that has the compilers. Reads one line of JSON, writes one for each
program.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
# What another process has compiled does not change the seconds.
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import hlo
from ppo_jax.config import AgentConfig, TrainConfig
from ppo_jax.schedules import programs_for

H100 = Path(__file__).with_name("h100.txtpb")


def devices(target: str, chips: int) -> list[Any]:
    """Return descriptions of the devices of a target, ``h100`` or ``v5e``."""
    if target == "h100":
        topology = topologies.get_topology_desc(
            "h100", platform="cuda", topology=f"1x1x{chips}", target_config=H100.read_text()
        )
    else:
        topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    return list(topology.devices)[:chips]


def main() -> None:
    """Compile what standard input asks for."""
    request = json.loads(sys.stdin.readline())
    target = devices(request["target"], request["chips"])
    # An MLP for images too, as in all benchmarks of speed.
    config = TrainConfig(request["env"], agent=AgentConfig(network="mlp"))
    programs = programs_for(config, request["seeds"], request["lanes"], target)
    for name, (function, *arguments) in programs.definitions().items():
        if name not in request["programs"]:
            continue
        if name == "initialisation":  # It names no device itself.
            everywhere = NamedSharding(programs.mesh.mesh, PartitionSpec())
            (keys,) = arguments
            arguments = [jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=everywhere)]
        start = time.perf_counter()
        lowered = programs.lowered(name, function, *arguments)
        traced = time.perf_counter()
        compiled = lowered.compile(compiler_options=dict(programs.mesh.compiler_options))
        seconds = time.perf_counter() - traced
        memory: Any = compiled.memory_analysis()
        text = compiled.as_text()
        assert text is not None, "the compiler gives its result as text"
        print(
            json.dumps(
                {
                    "program": name,
                    "trace_seconds": traced - start,
                    "compile_seconds": seconds,
                    "bytes": memory.argument_size_in_bytes
                    + memory.output_size_in_bytes
                    + memory.temp_size_in_bytes
                    - memory.alias_size_in_bytes,
                    "body": hlo.parse(text).to_dict(),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
