"""How tests compile: most of their programs run once. tests/method/test_adversary.py takes 48 s of the processor's time with these, and 74
with the first alone. A value that such code makes twice it may round in two ways: what a test compares must not hang on that.
"""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
