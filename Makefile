# What an operator and CI type. `make help` lists it. ENV names the place: lab (the default), staging or prod.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ENV ?= lab
DROPLETS ?= 1
TAG ?=
KEY ?=
ID ?= latest
OFFSITE ?=
SNAPSHOT ?=
BESIDE ?=
YES ?=
REMOVE ?=
DRILL_MB ?= 20
# A mistyped variable would be ignored, and `make restore BESIDES=lost` be a restore in place.
KNOWN := ENV DROPLETS TAG KEY ID OFFSITE SNAPSHOT BESIDE YES REMOVE DRILL_MB PYTHON
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN := $(filter-out $(KNOWN) MAKEFLAGS MAKEOVERRIDES -%,$(GIVEN))
# Words that are near one another, by the library that deploys/ uses for the same.
LIKE = $(shell python3 -c 'import difflib, sys; print(*("(did you mean " + name + "?)" for name in \
	difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1)))' '$(firstword $(UNKNOWN))' $(KNOWN))
$(if $(UNKNOWN),$(error $(strip There is no variable $(firstword $(UNKNOWN)) $(LIKE)). Nothing was changed. Next: make help))
# As variables of the shell they need no quoting, whatever is in them.
export TAG KEY ID YES SNAPSHOT BESIDE REMOVE
INVENTORY := inventories/$(ENV).py
$(if $(wildcard $(INVENTORY)),,$(error ENV=$(ENV) is no place: lab, staging or prod))
PYTHON := .venv/bin/python
# -y: `make plan` has shown the plan; pyinfra would evaluate everything twice to ask.
PYINFRA := $(PYTHON) -m pyinfra -y $(INVENTORY)

.PHONY: help setup lab-ready demo test lint unit lab-up lab-down lab-ssh plan site isolate live verify status release rollback \
	backup restore drill load faults audit attack rotate canary lock offsite prune

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "  Variables: ENV=lab|staging|prod (now: $(ENV)), $(filter-out ENV PYTHON,$(KNOWN))"

setup: .venv/.installed ## make the virtual environment from the lock file

.venv/.installed: requirements.txt pyproject.toml
	@echo "==> Setting up .venv from requirements.txt (about half a minute)"
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# The lab's packages first: the virtual environment is made with one of them.
lab-ready:
	@tests/lab/install
	@$(MAKE) setup

demo: lab-ready ## a bare droplet of the lab becomes a home for the bot, and answers Telegram
	@$(PYTHON) -m tests.lab.demo

lint: setup ## ruff, mypy --strict, and the linters of shell, Dockerfiles and workflows
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy .
	$(PYTHON) -m tests.lint

unit: setup ## the tests that need no droplet, in a few minutes
	$(PYTHON) -m pytest tests/unit

test: lab-ready ## what CI runs for each push: lint, unit, templates, and the checks on the lab's droplet
	@$(MAKE) -j2 lab-up lint unit # two cores: the lab is built while what needs none is looked at
	$(PYTHON) -m pytest --ignore-glob='tests/unit/*'

lab-up: lab-ready ## boot the lab: world, neighbour and DROPLETS droplets
	$(PYTHON) -m tests.lab up --droplets $(DROPLETS)

lab-down: setup ## take the lab down; nothing stays but the cache
	$(PYTHON) -m tests.lab down

lab-ssh: setup ## a shell on the lab's first droplet
	$(PYTHON) -m tests.lab ssh droplet1

plan: setup ## what `make site` would change on ENV, with differences
	@$(PYTHON) -m deploys.plan $(INVENTORY)
	@$(PYTHON) -m deploys.ledger $(INVENTORY)

site: setup ## converge ENV, and remove what is foreign and named: REMOVE="NAME NAME"
	$(PYINFRA) deploys/site.py $(if $(value REMOVE),--data "foreign_removed=\"$$REMOVE\"")
	@$(PYTHON) -m deploys.ledger $(INVENTORY)

isolate: setup ## converge ENV as a copy, for a restore: no worker, no webhook, nothing leaves the app
	$(PYINFRA) deploys/site.py --data isolated=true

live: setup ## converge ENV, and have a copy go live
	$(PYINFRA) deploys/site.py --data isolated=false
	@$(PYTHON) -m deploys.ledger $(INVENTORY)

verify: setup ## the checks of ENV's droplets, which only read there
	$(PYTHON) -m pytest tests/droplet --place $(ENV)

status: setup ## what runs on ENV, and what is wrong with it
	@$(PYINFRA) deploys/status.py
	@$(PYTHON) -m deploys.ledger $(INVENTORY)

release: setup ## put the image TAG live on ENV
	@$(PYINFRA) deploys/release.py --data "tag=\"$$TAG\""

backup: setup ## back ENV's data up now: dumped, restored for proof, sent off the droplet
	@$(PYINFRA) deploys/backup.py

restore: setup ## put ENV's backup ID=…|latest in the place of what is live: shows the plan, then again with YES=the id
	@$(PYINFRA) deploys/restore.py --data "id=\"$$ID\"" --data "yes=\"$$YES\"" $(if $(value OFFSITE),--data offsite=true) \
		$(if $(value SNAPSHOT),--data "snapshot=\"$$SNAPSHOT\"") \
		$(if $(value BESIDE),--data "beside=\"$$BESIDE\"")

rollback: setup ## put live on ENV what was before, or TAG
	@$(PYINFRA) deploys/rollback.py $(if $(value TAG),--data "tag=\"$$TAG\"")

load: lab-ready ## ten releases and two rollbacks in the lab under load: not one request is lost
	$(PYTHON) -m pytest tests/releases/test_client.py tests/releases/test_load.py tests/releases/test_jobs.py tests/releases/test_rotation.py

faults: lab-ready ## in the lab: releases and backups broken in every way and at every step; defences at every event; lock-outs
	$(PYTHON) -m pytest tests/releases/test_faults.py tests/releases/test_other_team.py tests/defences tests/data

drill: $(if $(filter lab,$(ENV)),lab-ready) ## the lab's droplet is lost, and comes back from what lies off it, with DRILL_MB of data
	$(if $(filter lab,$(ENV)),,$(error make drill destroys the droplet: in the lab alone))
	@$(PYTHON) -m tests.lab.drill --mb $(DRILL_MB)

audit: $(if $(filter lab,$(ENV)),lab-ready,setup) ## what independent judges say of ENV: lynis, ssh-audit, testssl.sh, gixy, nmap, systemd, the baselines
	$(PYTHON) -m pytest tests/audit --place $(ENV)

attack: lab-ready ## attacks on the lab from the droplet's neighbour, each also with its defence out
	$(PYTHON) -m pytest tests/attack

rotate: setup ## a new value for the secret KEY of ENV
	@$(PYTHON) -m deploys.rotate $(INVENTORY) "$$KEY" $(if $(value YES),--yes)

offsite: setup ## make the repository that ENV's backups go to off the droplet, or mend its passwords; look at what is there
	@$(PYTHON) -m deploys.offsite $(INVENTORY)
	@$(PYTHON) -m deploys.look $(INVENTORY)

prune: setup ## drop ENV's old backups off the droplet, once you said yes to the plan
	@$(PYTHON) -m deploys.prune $(INVENTORY) $(if $(value YES),--yes)

canary: lab-ready ## secrets with marker values in the lab: searched for in all that is written, and found nowhere
	$(PYTHON) -m pytest tests/canary

lock: setup ## resolve the declared dependencies anew into requirements.txt
	.venv/bin/uv pip compile --quiet pyproject.toml --extra dev tests/lab/bot/requirements.in \
		--constraint tests/lab/bot/requirements.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --output-file requirements.txt
