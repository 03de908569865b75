// Package config reads the program's settings from the environment, checks them all, and
// tells all that is wrong at once, before anything is contacted.
package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/tencent"
)

// raw is the environment as it stands: all text, so that every mistake can be told in one
// go and with its variable's name.
type raw struct {
	Targets      string `env:"TIWKEYD_TARGETS"`
	Discover     string `env:"TIWKEYD_DISCOVER, default=false"`
	Schedule     string `env:"TIWKEYD_SCHEDULE, default=0 3 * * *"`
	Splay        string `env:"TIWKEYD_SPLAY, default=0s"`
	Propagation  string `env:"TIWKEYD_PROPAGATION, default=6m"`
	Grace        string `env:"TIWKEYD_GRACE, default=24h"`
	KeyLength    string `env:"TIWKEYD_KEY_LENGTH, default=64"`
	AttemptLimit string `env:"TIWKEYD_ATTEMPT_LIMIT, default=1h"`
	Reconcile    string `env:"TIWKEYD_RECONCILE, default=10m"`
	OnDrift      string `env:"TIWKEYD_ON_DRIFT, default=reassert"`
	Store        string `env:"TIWKEYD_STORE, default=vault"`
	VaultMount   string `env:"TIWKEYD_VAULT_MOUNT, default=secret"`
	VaultPrefix  string `env:"TIWKEYD_VAULT_PREFIX, default=tiw"`
	KeepVersions string `env:"TIWKEYD_VAULT_KEEP_VERSIONS, default=false"`
	Site         string `env:"TIWKEYD_TENCENT_SITE"`
	Endpoint     string `env:"TIWKEYD_TENCENT_ENDPOINT"`
	Region       string `env:"TIWKEYD_TENCENT_REGION"`
	Credentials  string `env:"TIWKEYD_TENCENT_CREDENTIALS, default=auto"`
	Rate         string `env:"TIWKEYD_RATE, default=20"`
	LogLevel     string `env:"TIWKEYD_LOG_LEVEL, default=info"`
	LogFormat    string `env:"TIWKEYD_LOG_FORMAT, default=json"`
	HTTPAddr     string `env:"TIWKEYD_HTTP_ADDR, default=127.0.0.1:9469"`
	HTTPToken    string `env:"TIWKEYD_HTTP_TOKEN"`
	HTTPURL      string `env:"TIWKEYD_HTTP_URL"`
}

// Config is the checked settings.
type Config struct {
	Targets     []secrets.Target
	Discover    bool // serve also what has a keyring in the store
	Schedule    *schedule.Schedule
	Spec        string // the schedule as it was given
	Policy      rotator.Policy
	FileStore   string // the directory; "" means Vault
	VaultMount  string
	VaultPrefix string
	Login       vault.Login
	Endpoint    string
	Region      string
	Credentials string
	Rate        float64
	LogLevel    slog.Level
	LogJSON     bool
	HTTPAddr    string              // of metrics, health and the status page; "" is nowhere
	HTTPToken   string              // a secret: who has it may have keys rotated on the status page; "": nobody
	HTTPURL     *url.URL            // by which people come, through a proxy before it; nil: none
	Env         func(string) string // the environment as it was when this was read

	// Unknown lists TIWKEYD_… variables that mean nothing: misspelt, most likely. Traces lists OTEL_…
	// variables, which other programs go by.
	Unknown, Traces []string
}

// VaultCredentials reports whether Tencent's credential is read from Vault.
func (c *Config) VaultCredentials() bool { return strings.HasPrefix(c.Credentials, "vault:") }

// InsteadOfAllProxy is what goes for ALL_PROXY, of which net/http knows nothing.
const InsteadOfAllProxy = "set HTTPS_PROXY, and HTTP_PROXY if VAULT_ADDR begins with http://; or VAULT_PROXY_ADDR for Vault alone"

// AllProxy reports whether ALL_PROXY is set.
func (c *Config) AllProxy() bool { return c.Env("ALL_PROXY") != "" || c.Env("all_proxy") != "" }

// Load reads and checks the environment, given as NAME=VALUE. Its error names every variable
// that is wrong.
func Load(environ []string) (*Config, error) {
	return load(environ, (*raw).check)
}

// Needs is what a command that only verifies callbacks must find in the environment.
type Needs struct{ Targets, Store bool }

// LoadReceiver reads and checks the part of the environment that matters to who verifies
// callbacks: the targets, the store and the log. What is not needed may be missing.
func LoadReceiver(environ []string, needs Needs) (*Config, error) {
	return load(environ, func(r *raw, k *checker, env func(string) string) *Config {
		c := &Config{Env: env}
		if needs.Targets || strings.TrimSpace(r.Targets) != "" {
			c.Targets = k.targets(r.Targets)
		}
		if needs.Store {
			if r.checkStore(k, c); c.FileStore == "" {
				k.proxies(env)
			}
		}
		r.checkLog(k, c)
		return c
	})
}

// HTTPAddr reads where a daemon with this environment serves its health, "" for nowhere. The
// rest of the environment may be wrong.
func HTTPAddr(environ []string) (string, error) {
	c, err := load(environ, func(r *raw, k *checker, _ func(string) string) *Config {
		return &Config{HTTPAddr: k.address("TIWKEYD_HTTP_ADDR", r.HTTPAddr)}
	})
	if err != nil {
		return "", err
	}
	return c.HTTPAddr, nil
}

func load(environ []string, check func(*raw, *checker, func(string) string) *Config) (*Config, error) {
	values := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	var r raw
	if err := envconfig.ProcessWith(context.Background(), &envconfig.Config{Target: &r, Lookuper: envconfig.MapLookuper(values)}); err != nil {
		return nil, fmt.Errorf("read the environment: %w", err)
	}
	k := &checker{}
	c := check(&r, k, func(name string) string { return values[name] })
	c.Unknown, c.Traces = Unknown(environ), traces(environ)
	if len(k.errs) > 0 {
		return nil, errors.Join(k.errs...)
	}
	return c, nil
}

func (r *raw) check(k *checker, env func(string) string) *Config {
	for _, name := range []string{"TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"} {
		k.pasted(name, env(name))
	}
	c := &Config{Env: env, Spec: r.Schedule, Credentials: r.Credentials}
	c.Policy = rotator.Policy{
		Propagation:  k.duration("TIWKEYD_PROPAGATION", r.Propagation, 0, rotator.MaxPropagation),
		Grace:        k.duration("TIWKEYD_GRACE", r.Grace, rotator.MinGrace, rotator.MaxGrace),
		AttemptLimit: k.duration("TIWKEYD_ATTEMPT_LIMIT", r.AttemptLimit, time.Minute, 7*24*time.Hour),
		Reconcile:    k.duration("TIWKEYD_RECONCILE", r.Reconcile, 10*time.Second, 24*time.Hour),
		KeyLength:    int(k.number("TIWKEYD_KEY_LENGTH", r.KeyLength, secrets.MinKeyLength, secrets.MaxKeyLength, true)),
		OnDrift:      rotator.Drift(k.oneOf("TIWKEYD_ON_DRIFT", r.OnDrift, "reassert", "adopt", "alarm")),
		KeepVersions: k.oneOf("TIWKEYD_VAULT_KEEP_VERSIONS", r.KeepVersions, "true", "false") == "true",
		Timing:       rotator.StandardTiming(),

		PropagationSet: env("TIWKEYD_PROPAGATION") != "",
	}
	c.Discover = k.oneOf("TIWKEYD_DISCOVER", r.Discover, "true", "false") == "true"
	if !c.Discover || strings.TrimSpace(r.Targets) != "" {
		c.Targets = k.targets(r.Targets)
	}
	splay := k.duration("TIWKEYD_SPLAY", r.Splay, 0, 24*time.Hour)
	every, err := schedule.Parse(r.Schedule, splay)
	k.check("TIWKEYD_SCHEDULE", err)
	c.Schedule = every
	if err == nil {
		if err := every.RoomFor(c.Policy.Propagation); err != nil {
			k.fail("TIWKEYD_SCHEDULE", "%q: %v (TIWKEYD_PROPAGATION)", r.Schedule, err)
		} else if every.Keys(&c.Policy, nil) > schedule.MaxKeys {
			k.fail("TIWKEYD_SCHEDULE", "%q replaces more than %d keys within TIWKEYD_GRACE (%s), and no store holds so many: rotate less often, or shorten the grace", r.Schedule, schedule.MaxKeys, r.Grace)
		}
	}
	c.Rate = k.number("TIWKEYD_RATE", r.Rate, 0.01, 10000, false)
	k.proxies(env)
	r.checkSite(k, c)
	_, err = tencent.ParseCredentials(r.Credentials, env, nil)
	k.check("TIWKEYD_TENCENT_CREDENTIALS", err)
	c.HTTPAddr = k.address("TIWKEYD_HTTP_ADDR", r.HTTPAddr)
	c.HTTPToken = k.token("TIWKEYD_HTTP_TOKEN", r.HTTPToken)
	c.HTTPURL = k.site("TIWKEYD_HTTP_URL", r.HTTPURL)
	r.checkStore(k, c)
	r.checkLog(k, c)
	return c
}

// checkSite reads which of Tencent's two sites the account is of.
func (r *raw) checkSite(k *checker, c *Config) {
	site, known := tencent.Sites[r.Site]
	if !known {
		k.fail("TIWKEYD_TENCENT_SITE", "%q is neither intl nor mainland", r.Site)
		return
	}
	c.Endpoint, c.Region = cmp.Or(r.Endpoint, site.Endpoint), cmp.Or(r.Region, site.Region)
	_, _, err := tencent.ParseEndpoint(c.Endpoint)
	k.check("TIWKEYD_TENCENT_ENDPOINT", err)
	if strings.ContainsAny(c.Region, " \t\r\n/:") {
		k.fail("TIWKEYD_TENCENT_REGION", "%q is not the name of a region, such as ap-singapore", c.Region)
	}
	for _, t := range c.Targets {
		if t.Service == secrets.PPTCheck && c.Region == tencent.DefaultRegion {
			k.fail("TIWKEYD_TARGETS", "%s: this service is of the mainland site only, and an account of it needs TIWKEYD_TENCENT_SITE=mainland", t)
		}
	}
}

// checkStore reads where the keyrings are.
func (r *raw) checkStore(k *checker, c *Config) {
	c.VaultMount, c.VaultPrefix = strings.Trim(r.VaultMount, "/"), strings.Trim(r.VaultPrefix, "/")
	c.FileStore = k.store(r.Store)
	if c.FileStore != "" && !c.VaultCredentials() {
		return
	}
	for _, name := range []string{"VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_K8S_ROLE", "VAULT_NAMESPACE"} {
		k.pasted(name, c.Env(name))
	}
	k.folder("TIWKEYD_VAULT_MOUNT", c.VaultMount)
	k.folder("TIWKEYD_VAULT_PREFIX", c.VaultPrefix)
	for _, name := range []string{"VAULT_ADDR", "VAULT_AGENT_ADDR"} {
		if addr := c.Env(name); addr != "" {
			k.check(name, vault.CheckAddress(addr))
		}
	}
	login, err := vault.LoginFromEnv(c.Env)
	k.check("", err)
	c.Login = login
}

// checkLog reads what to log, and how.
func (r *raw) checkLog(k *checker, c *Config) {
	level := k.oneOf("TIWKEYD_LOG_LEVEL", strings.ToLower(r.LogLevel), "debug", "info", "warn", "error")
	if level != "" {
		k.check("TIWKEYD_LOG_LEVEL", c.LogLevel.UnmarshalText([]byte(level)))
	}
	c.LogJSON = k.oneOf("TIWKEYD_LOG_FORMAT", r.LogFormat, "json", "text") == "json"
}

// store gives the directory of a file store, "" for Vault.
func (k *checker) store(v string) string {
	if v == "vault" {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "file" || u.Host != "" || !filepath.IsAbs(u.Path) || path.Clean(u.Path) == "/" {
		k.fail("TIWKEYD_STORE", "it is neither vault nor file:///an/absolute/path")
		return ""
	}
	return path.Clean(u.Path)
}

// targets reads a list; all that is wrong in it is told.
func (k *checker) targets(v string) []secrets.Target {
	var all []secrets.Target
	if strings.TrimSpace(v) == "" {
		k.fail("TIWKEYD_TARGETS", "is empty: name at least one, as SDKAPPID or SDKAPPID/SERVICE, separated by commas, or set TIWKEYD_DISCOVER=true")
		return nil
	}
	for s := range strings.SplitSeq(v, ",") {
		t, err := secrets.ParseTarget(s)
		switch {
		case strings.TrimSpace(s) == "":
			k.fail("TIWKEYD_TARGETS", "%q has an empty entry: there is a comma too many", v)
		case err != nil:
			k.check("TIWKEYD_TARGETS", err)
		case slices.Contains(all, t):
			k.fail("TIWKEYD_TARGETS", "%s is there twice", t)
		default:
			all = append(all, t)
		}
	}
	return all
}
