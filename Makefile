# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
GO         ?= go
TOOL        = $(GO) tool -modfile=tools/go.mod
STATICCHECK = $(TOOL) staticcheck
COMPOSE     = $(TOOL) github.com/compose-spec/compose-go/v2/cmd
SERVER      = secrets/vault/vaulttest/server
ESO         = docs/receivers/eso
BROWSER     = internal/page/browser
KUBERNETES  = deploy/kubernetes
TAGS        = receivers,sdk,torture,deploy,booted,bench
# The race detector needs a C compiler; without one the tests run all the same.
RACE       := $(shell command -v $(or $(CC),cc) >/dev/null 2>&1 && echo -race)
# Searches and simulations take turns in one goroutine; the race detector would find nothing
# there and make them ten times slower.
SEARCHES    = ^Test(Exhaustive.*|Simulation|Replay|Mutants|Shrink|Wave|Fleet|Partition|DueAtOnce|HundredThousand)$$
# End to end: daemons that are killed at every step, under callback load; fleets of receivers.
E2E         = ^Test(UnderFire|KilledAtEveryStep|TerminatedAtEveryStep|StoppedBeforePush|SeveralAtOnce|FleetOfGo|RevokeReaches|RestoredVault|FirstRotation)$$
# Tests with real processes mostly wait, so that more of them run at once than there are cores.
AT_ONCE     = -parallel 4

.PHONY: help check cross test e2e slow prove torture mutate build package image deploy demo receivers sdk browser vault vault-full lint bench bench-fleet fuzz clean

help: ## this list; times are for two quiet cores, with Vault built
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ## 20 to 40 s: vet, staticcheck and the quick tests; no network, no Vault
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(STATICCHECK) -tags $(TAGS) ./...
	$(GO) test -short $(AT_ONCE) ./...

SYSTEMS = darwin/arm64 darwin/amd64 linux/arm64 freebsd/amd64
cross: ## seconds, a minute at first: whether it builds for the other systems, tests included
	@# Without optimizing, which costs the most at first: every package is compiled for each of them.
	for s in $(SYSTEMS); do GOOS=$${s%/*} GOARCH=$${s#*/} CGO_ENABLED=0 $(GO) vet -gcflags='all=-N -l' ./... || { echo "vet for $$s"; exit 1; }; done

test: vault ## 2.5 min: everything, with a real Vault and the race detector
	@test -n "$(RACE)" || echo "no C compiler: the tests run without the race detector"
	$(GO) test $(RACE) $(AT_ONCE) -timeout 30m -skip '$(SEARCHES)|$(E2E)' ./...
	$(GO) test $(RACE) -timeout 30m -run '^TestFleet$$' ./internal/sim # here goroutines do meet
	$(GO) test -timeout 30m -run '$(SEARCHES)' ./rotator ./tencent ./internal/sim

e2e: vault vault-full ## 3.5 min: daemons killed at every step under callback load, fleets, a restored Vault
	$(GO) test $(RACE) $(AT_ONCE) -timeout 30m -run '$(E2E)' ./cmd/tiwkeyd
	PATH="$$(dirname "$$($(GO) run ./secrets/vault/vaulttest/fetch -full | sed -n 's/^Vault for the tests: //p')"):$$PATH" \
	  $(GO) test -timeout 30m ./secrets/vault # against the whole program, so that the small one does not drift

slow: vault vault-full ## 6 min: runs all of that and lists each package's slowest tests
	{ $(GO) test -json $(RACE) $(AT_ONCE) -timeout 30m -skip '$(SEARCHES)' ./...; \
	  $(GO) test -json -timeout 30m -run '$(SEARCHES)' ./rotator ./tencent ./internal/sim; } | \
	  $(TOOL) gotestsum tool slowest --threshold 500ms | sort -s -k1,1

ROTATIONS = 1000000
DAYS      = 10
BOUNDS    = full
prove: ## half an hour: simulated rotations, days of fleets, 10,000 targets due at once, the whole exhaustive search; ROTATIONS=50000 DAYS=1 BOUNDS=small for minutes
	TIWKEYD_SIM_ROTATIONS=$(ROTATIONS) $(GO) test -run Simulation -v -count 1 -timeout 0 ./internal/sim
	TIWKEYD_SIM_FLEETS=$(DAYS) $(GO) test -run Fleet -v -count 1 -timeout 0 ./internal/sim
	TIWKEYD_SIM_TARGETS=10000 $(GO) test -run DueAtOnce -v -count 1 -timeout 0 ./internal/sim
	TIWKEYD_EXHAUSTIVE=$(BOUNDS) $(GO) test -run Exhaustive -v -count 1 -timeout 0 ./rotator

FUNCTION  =
mutate: ## 40 min or more: takes each guard of the decision away, and a test must miss it; FUNCTION=decideRetire for one function
	$(GO) run ./internal/guards $(FUNCTION)

TIME    = 3m
SEED    = 1
PICTURE = bin/torture.svg
PAUSES  = 2m
UPGRADE = 10m
torture: vault ## 16 min, or TIME, PAUSES and UPGRADE: real processes to which everything happens that can, a Vault whose nodes are paused, then upgrades and back; TIME=1h UPGRADE=1m SEED=7; needs root, or user namespaces
	overlay=$$($(GO) run ./internal/wrongclock) && \
	TIWKEYD_TORTURE_TIME=$(TIME) TIWKEYD_TORTURE_SEED=$(SEED) TIWKEYD_TORTURE_PICTURE=$(abspath $(PICTURE)) $(GO) test -tags torture \
	  -overlay "$$overlay" -count 1 -timeout 0 -run '^TestTorture$$' -v ./cmd/tiwkeyd
	TIWKEYD_PAUSES_TIME=$(PAUSES) $(GO) test -tags torture -count 1 -timeout 0 -run '^TestPausedLeaders$$' -v ./secrets/vault
	[ -z "$(UPGRADE)" ] || TIWKEYD_UPGRADE_TIME=$(UPGRADE) TIWKEYD_TORTURE_SEED=$(SEED) $(GO) test -tags torture \
	  -count 1 -timeout 0 -run '^TestUpgradeAndBack$$' -v ./cmd/tiwkeyd

build: ## one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o bin/tiwkeyd ./cmd/tiwkeyd

VERSION = 0.1.0
RUNBOOK_URL =
package: ## a Debian package into bin/; VERSION=1.2.3 RUNBOOK_URL=https://wiki.example/tiwkeyd (where the alerts lead)
	RUNBOOK_URL="$(RUNBOOK_URL)" GO="$(GO)" deploy/debian/build $(VERSION) bin

image: ## the container image, into buildah's storage: IMAGE=localhost/tiwkeyd:latest VERSION=1.2.3
	GO="$(GO)" VERSION=$(VERSION) deploy/container/build $(IMAGE)

deploy: vault vault-full ## all of deploy/, built and run; needs root and Debian's mmdebstrap, lintian, buildah, podman, podman-compose, crun, iptables, prometheus
	$(COMPOSE) --no-interpolation deploy/compose/compose.yaml >/dev/null
	$(GO) test -count 1 -timeout 40m -tags deploy -v ./deploy/...
	cd $(KUBERNETES) && $(GO) test -timeout 30m ./...
	$(GO) test -timeout 30m -tags deploy -run '^TestDashboardQueries$$' -v ./cmd/tiwkeyd

demo: build ## rotations to watch, with nothing but this machine
	./bin/tiwkeyd demo

receivers: vault vault-full ## receivers in other languages, and a fleet of them; needs python3, node, java, php, nginx, jq; see docs/receivers
	$(GO) test $(RACE) -timeout 30m -tags receivers ./docs/receivers/...
	cd $(ESO) && $(GO) test -timeout 30m ./...
	$(GO) test -timeout 30m -tags receivers -run '^TestFleetOf' -v ./cmd/tiwkeyd

sdk: ## Tencent's own Node SDKs against the Tencent of our tests; needs node and npm, and fetches 100 MB once
	$(GO) test -count 1 -timeout 10m -tags sdk -run '^TestOfficialSDKs$$' ./tencent/tiwtest

browser: ## the status page in a real browser; needs chromium; SCREENSHOTS=DIR keeps what it looks like
	cd $(BROWSER) && TIWKEYD_SCREENSHOTS=$(abspath $(SCREENSHOTS)) $(GO) test -count 1 -timeout 10m ./...

lint: ## staticcheck and vet of every module, and whether they are tidy; asks the module proxy
	cd $(ESO) && $(GO) vet ./...
	cd $(KUBERNETES) && $(GO) vet ./...
	cd $(SERVER) && CGO_ENABLED=0 GOWORK=off $(GO) vet -trimpath ./... # as it is built, or all of Vault is compiled again
	cd $(BROWSER) && $(GO) vet ./... && $(GO) tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...
	for m in . tools $(SERVER) $(ESO) $(KUBERNETES) $(BROWSER); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done

vault: ## the Vault server for the tests: `vault` from PATH, or built once (3 min) into the user's cache
	$(GO) run ./secrets/vault/vaulttest/fetch

vault-full: ## the whole Vault, for the tests that need its command line or its agent (10 min, once)
	$(GO) run ./secrets/vault/vaulttest/fetch -full

bench: vault ## figures, as ratios measured in one run
	$(GO) test -run '^$$' -bench . -benchtime 2s ./...

bench-fleet: vault vault-full ## the tables of bench/README.md; TIWKEYD_BENCH_TARGETS=300 for a short run; needs curl and openssl
	$(GO) test -tags bench -count 1 -timeout 0 -v ./bench

fuzz: ## each fuzz target for two minutes
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 2m $$p || exit 1; \
	  done; \
	done

clean: ## removes bin/
	rm -rf bin
