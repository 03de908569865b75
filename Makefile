# Two commands matter: `make demo` and `make test`.
GO         ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
SERVER      = secrets/vault/vaulttest/server
COMPOSE     = github.com/compose-spec/compose-go/v2/cmd@v2.16.1
ESO         = docs/receivers/eso
BROWSER     = internal/page/browser
KUBERNETES  = deploy/kubernetes
# The race detector needs a C compiler; without one the tests run all the same.
RACE       := $(shell command -v $(or $(CC),cc) >/dev/null 2>&1 && echo -race)

.PHONY: build package image deploy demo test receivers browser torture prove vault lint bench bench-fleet fuzz clean

build: ## one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o bin/tiwkeyd ./cmd/tiwkeyd

VERSION = 0.1.0
package: ## a Debian package into bin/; VERSION=1.2.3
	GO="$(GO)" deploy/debian/build $(VERSION) bin

image: ## the container image, into buildah's storage: IMAGE=localhost/tiwkeyd:latest VERSION=1.2.3
	GO="$(GO)" VERSION=$(VERSION) deploy/container/build $(IMAGE)

deploy: vault ## all of deploy/, built and run; needs root and Debian's mmdebstrap, lintian, buildah, podman, podman-compose, crun, iptables, prometheus
	$(GO) run $(COMPOSE) --no-interpolation deploy/compose/compose.yaml >/dev/null
	$(GO) test -count 1 -timeout 40m -tags deploy -v ./deploy/...
	cd $(KUBERNETES) && $(GO) test -timeout 30m ./...
	$(GO) test -timeout 30m -tags deploy -run '^TestDashboardQueries$$' -v ./cmd/tiwkeyd

demo: build ## rotations to watch, with nothing but this machine
	./bin/tiwkeyd demo

vault: ## a real Vault server for the tests, from PATH or built once into the user's cache
	$(GO) run ./secrets/vault/vaulttest/fetch

test: vault ## everything
	@test -n "$(RACE)" || echo "no C compiler: the tests run without the race detector"
	$(GO) test $(RACE) -timeout 45m $$($(GO) list ./... | grep -v /cmd/)
	$(GO) test $(RACE) -timeout 45m ./cmd/... # loads the machine by itself

receivers: vault ## receivers in other languages, and a fleet of them; needs python3, node, java, php, nginx, jq; see docs/receivers
	$(GO) test $(RACE) -timeout 30m -tags receivers ./docs/receivers/...
	cd $(ESO) && $(GO) test -timeout 30m ./...
	$(GO) test -timeout 30m -tags receivers -run 'TestFleet' -v ./cmd/tiwkeyd

browser: ## the status page in a real browser; needs chromium; SCREENSHOTS=DIR keeps what it looks like
	cd $(BROWSER) && TIWKEYD_SCREENSHOTS=$(abspath $(SCREENSHOTS)) $(GO) test -count 1 -timeout 10m ./...

prove: ## a million simulated rotations, ten fleets, and the whole exhaustive search: half an hour on two cores
	TIWKEYD_SIM_ROTATIONS=1000000 $(GO) test -run Simulation -v -count 1 -timeout 0 ./internal/sim
	TIWKEYD_SIM_FLEETS=10 $(GO) test -run Fleet -v -count 1 -timeout 0 ./internal/sim
	TIWKEYD_EXHAUSTIVE=full $(GO) test -run Exhaustive -v -count 1 -timeout 0 ./rotator

TIME    = 3m
SEED    = 1
PICTURE = bin/torture.svg
torture: vault ## real processes to which everything happens that can; TIME=1h SEED=7; needs root, or user namespaces
	overlay=$$($(GO) run ./internal/wrongclock) && \
	TIWKEYD_TORTURE_TIME=$(TIME) TIWKEYD_TORTURE_SEED=$(SEED) TIWKEYD_TORTURE_PICTURE=$(abspath $(PICTURE)) $(GO) test -tags torture \
	  -overlay "$$overlay" -count 1 -timeout 0 -run '^TestTorture$$' -v ./cmd/tiwkeyd

lint: ## gofmt, vet, staticcheck, tidy modules
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet -tags receivers,torture,deploy,booted,bench ./...
	$(GO) run $(STATICCHECK) -tags receivers,torture,deploy,booted,bench ./...
	$(GO) mod tidy -diff
	cd $(SERVER) && $(GO) mod tidy -diff
	cd $(ESO) && $(GO) vet ./... && $(GO) mod tidy -diff
	cd $(KUBERNETES) && $(GO) vet ./... && $(GO) mod tidy -diff
	cd $(BROWSER) && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) mod tidy -diff

bench: vault ## figures, as ratios measured in one run
	$(GO) test -run '^$$' -bench . -benchtime 2s ./...

bench-fleet: vault ## the tables of bench/README.md; TIWKEYD_BENCH_TARGETS=300 for a short run; needs curl and openssl
	$(GO) test -tags bench -count 1 -timeout 0 -v ./bench

fuzz: ## each fuzz target for two minutes
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 2m $$p || exit 1; \
	  done; \
	done

clean:
	rm -rf bin
