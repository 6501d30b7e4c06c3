# What an operator and CI type. `make help` lists it; docs/reference/commands.md is generated from this file.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# ENV: the environment, which is `lab` (the default), `vm`, `staging` or `prod`
# TAG: the image tag for `release` or `rollback`
# KEY: the name of the secret that `rotate` replaces
# ID: the ID of the backup for `restore`, or `latest` (the default)
# OFFSITE: `OFFSITE=yes` lets `restore` fetch a backup that is only off-site
# SNAPSHOT: the off-site snapshot that `restore` uses if several snapshots have the same backup ID
# BESIDE: the name of a database into which `restore` loads the backup, beside the live database
# YES: confirms in advance. `restore` requires the backup's ID as the value; `prune` and `rotate` accept any value
# REMOVE: names of foreign findings that `site` removes
# DROPLETS: how many droplets `lab-up` boots
# DRILL_MB: how much data `drill` restores, in MB
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
# Make ignores a variable that it does not know. So `make restore BESIDES=lost` would be a restore in place.
KNOWN := ENV DROPLETS TAG KEY ID OFFSITE SNAPSHOT BESIDE YES REMOVE DRILL_MB PYTHON
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN := $(filter-out $(KNOWN) MAKEFLAGS MAKEOVERRIDES -%,$(GIVEN))
# LIKE suggests the variable with the most similar name. deploys/ uses the same library for its suggestions.
LIKE = $(shell python3 -c 'import difflib, sys; print(*("(did you mean " + name + "?)" for name in \
	difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1)))' '$(firstword $(UNKNOWN))' $(KNOWN))
$(if $(UNKNOWN),$(error $(strip There is no variable $(firstword $(UNKNOWN)) $(LIKE)). Nothing was changed. Next: make help))
# The recipes read these variables from the shell's environment, so no value needs quoting.
export TAG KEY ID YES SNAPSHOT BESIDE REMOVE
INVENTORY := inventories/$(ENV).py
$(if $(wildcard $(INVENTORY)),,$(error ENV=$(ENV) is no environment. Nothing was changed. Next: choose lab, vm, staging or prod))
PYTHON := .venv/bin/python
# With -y pyinfra does not ask for confirmation. To ask, pyinfra would evaluate everything twice. `make plan` shows the plan.
PYINFRA := $(PYTHON) -m pyinfra -y $(INVENTORY)

.PHONY: help setup lab-ready vm-ready demo test lint docs unit lab-up lab-down lab-ssh vm vm-tests plan site isolate promote verify status release rollback \
	backup restore drill load faults audit attack rotate leaks lock offsite prune live canary

# Old names of targets, each as OLD=NEW. An old name works until OLD_NAMES_END (stackctl/core/old_names.py), and prints the new name.
RENAMED := live=promote canary=leaks
$(foreach pair,$(RENAMED),$(if $(filter $(firstword $(subst =, ,$(pair))),$(MAKECMDGOALS)),$(warning \
	`$(firstword $(subst =, ,$(pair)))` is now called `$(lastword $(subst =, ,$(pair)))`. The old name works until version 0.2.0)))
live: promote
canary: leaks

help: ## list the targets and variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "  Variables: ENV=lab|vm|staging|prod (now: $(ENV)), $(filter-out ENV PYTHON,$(KNOWN))"

setup: .venv/.installed ## create the virtual environment from the lock file

.venv/.installed: requirements.txt pyproject.toml
	@echo "==> Setting up .venv from requirements.txt (about half a minute)"
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# The lab's packages are installed first, because one of them creates the virtual environment.
lab-ready:
	@tests/lab/install packages.txt
	@$(MAKE) setup

vm-ready: lab-ready
	@tests/lab/install packages-vm.txt

demo: lab-ready ## converge a bare droplet in the lab, release the bot and deliver a Telegram update to it
	@$(PYTHON) -m tests.lab.demo

lint: setup ## run ruff, mypy --strict, the linters of shell, Dockerfiles and workflows, and the check of the docs
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy .
	$(PYTHON) -m tests.lint

docs: setup ## generate the reference pages from group_data, the Makefile and stackctl
	$(PYTHON) -m tests.docs --write

unit: setup ## run the tests that need no droplet (a few minutes)
	$(PYTHON) -m pytest tests/unit

test: lab-ready ## run the checks that CI runs for each push: lint, unit tests, template tests, and the checks on the lab's droplet
	@$(MAKE) -j2 lab-up lint unit # -j2: the lab boots while the checks that need no lab run
	$(PYTHON) -m pytest --ignore-glob='tests/unit/*'

lab-up: lab-ready ## boot the lab: its servers (world), a neighbour, and as many droplets as DROPLETS says
	$(PYTHON) -m tests.lab up --droplets $(DROPLETS)

lab-down: setup ## remove the lab, but keep its cache
	$(PYTHON) -m tests.lab down

lab-ssh: setup ## open a shell on the lab's first droplet
	$(PYTHON) -m tests.lab ssh droplet1

vm: vm-ready ## boot the lab's virtual machine, which has a kernel of its own and is the environment `vm`
	$(PYTHON) -m tests.lab up --droplets 0 --vm

vm-tests: vm ## test the virtual machine with power cuts, full disks, too little memory and a wrong clock (hours without KVM)
	$(PYTHON) -m pytest tests/system/vm --env vm

plan: setup ## show the changes that `make site` would make on ENV, with diffs
	@$(PYTHON) -m deploys.converge.plan $(INVENTORY)
	@$(PYTHON) -m deploys.cli.ages $(INVENTORY)

site: setup ## converge ENV, and remove the foreign things that REMOVE="NAME NAME" names
	$(PYINFRA) deploys/site.py $(if $(value REMOVE),--data "foreign_removed=\"$$REMOVE\"")
	@$(PYTHON) -m deploys.cli.ages $(INVENTORY)

isolate: setup ## converge ENV as an isolated droplet: no worker, no webhook, no outgoing connections from the app
	$(PYINFRA) deploys/site.py --data isolated=true

promote: setup ## converge ENV and end its isolation
	$(PYINFRA) deploys/site.py --data isolated=false
	@$(PYTHON) -m deploys.cli.ages $(INVENTORY)

verify: setup ## run the read-only checks of ENV's droplets
	$(PYTHON) -m pytest tests/droplet --env $(ENV)

status: setup ## show what is running on ENV, and any problems
	@$(PYINFRA) deploys/status.py
	@$(PYTHON) -m deploys.cli.ages $(INVENTORY)

release: setup ## release the image TAG on ENV
	@$(PYINFRA) deploys/release.py --data "tag=\"$$TAG\""

backup: setup ## back up ENV's data now, verify the backup and send it off-site
	@$(PYINFRA) deploys/backup.py

restore: setup ## show the plan for restoring the backup ID on ENV; with YES=ID, carry out the plan
	@$(PYINFRA) deploys/restore.py --data "id=\"$$ID\"" --data "yes=\"$$YES\"" $(if $(value OFFSITE),--data offsite=true) \
		$(if $(value SNAPSHOT),--data "snapshot=\"$$SNAPSHOT\"") \
		$(if $(value BESIDE),--data "beside=\"$$BESIDE\"")

rollback: setup ## roll ENV back to the previous release, or to TAG
	@$(PYINFRA) deploys/rollback.py $(if $(value TAG),--data "tag=\"$$TAG\"")

load: lab-ready ## run releases and rollbacks in the lab under load, and count lost requests
	$(PYTHON) -m pytest tests/system/load

faults: lab-ready ## in the lab, break every step of releases, backups and restores, and try changes that would lock the operator out
	$(PYTHON) -m pytest tests/system/faults

drill: $(if $(filter lab,$(ENV)),lab-ready) ## destroy the lab's droplet and rebuild it from its off-site backup, with DRILL_MB of data
	$(if $(filter lab,$(ENV)),,$(error make drill destroys the droplet, so it runs only in the lab. Nothing was changed. Next: make drill))
	@$(PYTHON) -m tests.lab.drill --mb $(DRILL_MB)

audit: $(if $(filter lab,$(ENV)),lab-ready,setup) ## run independent audits of ENV: lynis, ssh-audit, testssl.sh, gixy, nmap, systemd and the baselines
	$(PYTHON) -m pytest tests/system/audit --env $(ENV)

attack: lab-ready ## attack the lab's droplet from the neighbour, with each defence on and then off
	$(PYTHON) -m pytest tests/system/attack

rotate: setup ## replace the secret KEY of ENV
	@$(PYTHON) -m deploys.rotation.rotate $(INVENTORY) "$$KEY" $(if $(value YES),--yes)

offsite: setup ## create ENV's off-site repository or repair its passwords, and list its backups
	@$(PYTHON) -m deploys.offsite.setup $(INVENTORY)
	@$(PYTHON) -m deploys.offsite.look $(INVENTORY)

prune: setup ## delete ENV's old off-site backups, after you confirm the plan
	@$(PYTHON) -m deploys.offsite.prune $(INVENTORY) $(if $(value YES),--yes)

leaks: lab-ready ## plant marker secrets in the lab and check that none of them leaks
	$(PYTHON) -m pytest tests/system/leaks

lock: setup ## resolve the Python dependencies again and write requirements.txt
	.venv/bin/uv pip compile --quiet pyproject.toml --extra dev tests/lab/bot/requirements.in \
		--constraint tests/lab/bot/requirements.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --output-file requirements.txt
