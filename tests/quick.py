"""How tests compile: most of their programs run once. Half of the processor's time of LLVM's full way behind MLIR's emitters."""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
