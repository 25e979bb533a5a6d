PYTHON ?= python3
BIN := .venv/bin
RUN := runs/digits

.PHONY: demo test test-slow lint format bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       pretrain on the embedded digits, evaluate, write a report (minutes on 2 cores)"
	@echo "make test       the fast test suite"
	@echo "make test-slow  the tests that take minutes each"
	@echo "make lint       ruff (lint, format) and mypy"
	@echo "make format     let ruff mend what it can"
	@echo "make bench      how fast the digits run here: step, augmentation, input, frozen encoder"

.venv/ready: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# JAX asks for a step's memory anew at every step: in pages of 2 MB, where Linux gives them to who asks, it comes sooner.
demo bench: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

demo: .venv/ready
	$(BIN)/byol-jax pretrain --config configs/digits.py --workdir $(RUN)
	$(BIN)/byol-jax evaluate fewlabels --workdir $(RUN)
	$(BIN)/byol-jax report --workdir $(RUN)

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/links.py

bench: .venv/ready
	$(BIN)/byol-jax bench step --config configs/digits.py --baseline
	$(BIN)/byol-jax bench augment --config configs/digits.py
	$(BIN)/byol-jax bench input --config configs/digits.py
	$(BIN)/byol-jax bench eval --config configs/digits.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
