"""How tests compile: most of their programs run once. With these, tests/method/test_adversary.py took 54 and 48 s of the processor's
time, with the first alone 74. A value that such code makes twice it may round in two ways: what a test compares must not hang on that.
"""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
