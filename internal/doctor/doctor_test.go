package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
)

// patient is a subject whose parts answer, or hang until they are given up.
type patient struct {
	healthHangs, tokenHangs, policyHangs, readHangs, timeHangs, credentialHangs, describeHangs bool

	answered  int64 // how many calls of Describe are answered before it hangs
	described atomic.Int64
	read      atomic.Int64
}

func hang(ctx context.Context, hangs bool) error {
	if !hangs {
		return nil
	}
	<-ctx.Done()
	return &vault.Error{Tried: "ask", Err: ctx.Err()}
}

func (p *patient) Health(ctx context.Context) (vault.Health, error) {
	return vault.Health{Initialized: true, Date: time.Now()}, hang(ctx, p.healthHangs)
}

func (p *patient) LookUpToken(ctx context.Context) (vault.TokenInfo, error) {
	return vault.TokenInfo{Method: vault.AppRole}, hang(ctx, p.tokenHangs)
}
func (p *patient) CheckMount(ctx context.Context, _ secrets.Target) (bool, error) { return true, nil }
func (p *patient) Needs(t secrets.Target, _ bool) []vault.Need {
	return []vault.Need{{Path: t.String(), Capabilities: []string{"read"}}}
}

func (p *patient) NeedToRead(_ context.Context, path string) (vault.Need, error) {
	return vault.Need{Path: path, Capabilities: []string{"read"}}, nil
}

func (p *patient) Missing(ctx context.Context, needs []vault.Need) ([][]string, error) {
	return make([][]string, len(needs)), hang(ctx, p.policyHangs)
}

func (p *patient) Secret(context.Context, secrets.Target, int64) (vault.Version, error) {
	return vault.Version{}, nil
}

func (p *patient) ServerTime(ctx context.Context) (time.Time, error) {
	return time.Now(), hang(ctx, p.timeHangs)
}

func (p *patient) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	if n := p.described.Add(1); p.describeHangs && n > p.answered {
		<-ctx.Done()
		return secrets.Key{}, &rotator.APIError{Action: "Describe", Target: t, Code: "ClientError.NetworkError", Message: ctx.Err().Error(), Advice: "check the network"}
	}
	return secrets.Key{}, nil
}

func (p *patient) Read(ctx context.Context, _ secrets.Target) (rotator.Snapshot, error) {
	p.read.Add(1)
	return rotator.Snapshot{}, hang(ctx, p.readHangs)
}
func (p *patient) String() string { return "a store" }

// targets of the patient: enough that waiting for each would take hours.
const targets = 5000

func (p *patient) examine(t *testing.T, env ...string) []Finding {
	t.Helper()
	var names []string
	for i := range targets {
		names = append(names, fmt.Sprint(i+1))
	}
	env = append([]string{"VAULT_TOKEN=t", "TIWKEYD_RATE=10000", "TIWKEYD_TARGETS=" + strings.Join(names, ",")}, env...)
	var all []Finding
	report := func(f Finding) { all = append(all, f) }
	c := Configure(env, report)
	if c == nil {
		t.Fatalf("%+v", all)
	}
	s := Subject{Config: c, Vault: p, Store: p, Tencent: p, Now: time.Now, Report: report, Progress: func(Check, int, int) {},
		Credential: func(ctx context.Context) error { return hang(ctx, p.credentialHangs) },
		Phase:      func(*rotator.Keyring, time.Time) string { return "settled" }}
	Examine(t.Context(), s)
	return all
}

func count(all []Finding, c Check, s Status) int {
	n := 0
	for _, f := range all {
		if f.Check == c && f.Status == s {
			n++
		}
	}
	return n
}

// TestHangs has one part after the other hang, before thousands of targets: each ends in a
// failure of its own, and all in less than a minute of the parts' time.
func TestHangs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		patient *patient
		check   Check
		skipped []Check
	}{
		{"Vault", &patient{healthHangs: true}, Vault, []Check{VaultClock, VaultToken, VaultMount, VaultPolicy, Keyring}},
		{"the login", &patient{tokenHangs: true}, VaultToken, []Check{VaultMount, VaultPolicy, Keyring}},
		{"capabilities", &patient{policyHangs: true}, VaultPolicy, nil},
		{"reading", &patient{readHangs: true}, Keyring, []Check{Keyring}},
		{"Tencent", &patient{timeHangs: true}, Tencent, []Check{TencentClock, Credential, Region, Permission, Application}},
		{"a credential's source", &patient{credentialHangs: true}, Credential, []Check{Region, Permission, Application}},
		{"Tencent's API", &patient{describeHangs: true}, Tencent, []Check{Credential, Region, Permission, Application}},
		{"Tencent's API after a while", &patient{describeHangs: true, answered: 2000}, Application, []Check{Application}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				all := c.patient.examine(t)
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s", took)
				}
				if n := count(all, c.check, Fail); n == 0 || n > patience+8 { // those that were under way together
					t.Errorf("%d failures of %s", n, c.check)
				}
				for _, s := range c.skipped {
					if count(all, s, Skip) == 0 {
						t.Errorf("%s was not skipped", s)
					}
				}
				for _, f := range all {
					if f.Status == Fail && (f.Check != c.check || f.Mend == "") {
						t.Errorf("%+v", f)
					}
				}
			})
		})
	}
}

// TestAllAreLookedAt has nothing hang: none of thousands is left out.
func TestAllAreLookedAt(t *testing.T) {
	t.Parallel()
	p := &patient{}
	all := p.examine(t)
	if p.described.Load() != targets || p.read.Load() != targets || count(all, Application, OK) != targets || count(all, Keyring, OK) != targets || count(all, VaultPolicy, OK) != targets {
		t.Errorf("%d asked about, %d read, %d findings", p.described.Load(), p.read.Load(), len(all))
	}
	for _, f := range all {
		if f.Status != OK {
			t.Errorf("%+v", f)
		}
	}
}

// TestInterrupted ends when it is told to, with answers outstanding.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := &examination{Subject: Subject{Report: func(Finding) {}, Progress: func(Check, int, int) {}}, because: map[Check]Check{}}
		time.AfterFunc(time.Second, cancel)
		e.each(ctx, Keyring, make([]secrets.Target, targets), 4, func(ctx context.Context, _ secrets.Target) answer {
			<-ctx.Done()
			return answer{}
		})
	})
}

// TestClock has the bounds: up to a minute is well, up to four is a warning.
func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		off    time.Duration
		status Status
		what   string
	}{
		{0, OK, "to within 1s"}, {time.Minute, OK, "to within 1m0s"}, {-time.Minute, OK, "to within 1m0s"}, {61 * time.Second, Warn, "1m1s ahead of"}, {-61 * time.Second, Warn, "1m1s behind"},
		{4 * time.Minute, Warn, "4m0s ahead of"}, {4*time.Minute + time.Second, Fail, "4m1s ahead of"}, {-5 * time.Minute, Fail, "5m0s behind"},
	} {
		var got Finding
		e := &examination{Subject: Subject{Report: func(f Finding) { got = f }}, because: map[Check]Check{}}
		// The other clock shows whole seconds, and is read in the middle of the request.
		r := reading{before: now.Add(c.off - time.Second), after: now.Add(c.off + time.Second), theirs: now.Add(-time.Second / 2)}
		e.clock(TencentClock, "Tencent", "set it", r)
		if got.Status != c.status || !strings.Contains(got.What, c.what) {
			t.Errorf("%s off: %+v", c.off, got)
		}
	}
	var got Finding
	e := &examination{Subject: Subject{Report: func(f Finding) { got = f }}, because: map[Check]Check{}}
	if e.clock(VaultClock, "Vault", "", reading{}); got.Status != Warn {
		t.Errorf("without a Date: %+v", got)
	}
}

// TestToken is how long the daemon will have a token, by how it comes by it.
func TestToken(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct {
		token  vault.TokenInfo
		status Status
	}{
		{vault.TokenInfo{Method: vault.Token}, OK}, // it never ends
		{vault.TokenInfo{Method: vault.Token, TTL: time.Minute, Renewable: true}, OK},
		{vault.TokenInfo{Method: vault.Token, TTL: time.Minute, Renewable: true, Ends: now.Add(2 * time.Hour)}, Warn},
		{vault.TokenInfo{Method: vault.Token, TTL: time.Minute, Renewable: true, Ends: now.Add(time.Minute)}, Fail},
		{vault.TokenInfo{Method: vault.Token, TTL: 2 * time.Hour}, Warn},
		{vault.TokenInfo{Method: vault.Token, TTL: time.Minute}, Fail},
		{vault.TokenInfo{Method: vault.TokenFile, TTL: time.Minute}, Warn},
		{vault.TokenInfo{Method: vault.TokenFile, TTL: 2 * time.Hour}, OK},
		{vault.TokenInfo{Method: vault.AppRole, TTL: time.Minute}, OK}, // it logs in again
		{vault.TokenInfo{Method: vault.Kubernetes, TTL: time.Minute, Ends: now}, OK},
		{vault.TokenInfo{Method: vault.Token, Policies: []string{"root"}}, Warn},
		{vault.TokenInfo{Method: vault.Token, Hidden: true}, Warn},
	} {
		if got := judgeToken(c.token, now); got.Status != c.status || (got.Mend == "") != (c.status == OK) {
			t.Errorf("%+v: %+v", c.token, got)
		}
	}
}

func TestMisspelt(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"TIWKEYD_TARGET":           "set TIWKEYD_TARGETS if that is meant, and unset TIWKEYD_TARGET",
		"TIWKEYD_PROPOGATION":      "set TIWKEYD_PROPAGATION if",
		"TIWKEYD_VAULT_MOUNTPOINT": "set TIWKEYD_VAULT_MOUNT if",
		"TIWKEYD_XYZZY_PLUGH_FROB": "unset it",
	} {
		if got := meant(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"abc", "bc", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q: %d", c.a, c.b, got)
		}
	}
}

// TestMisconfigured: whatever is wrong with the configuration has a mend, and is told with
// what is not looked at.
func TestMisconfigured(t *testing.T) {
	t.Parallel()
	var all []Finding
	if c := Configure([]string{"TIWKEYD_KEY_LENGTH=1", "TIWKEYD_STORE=x", "TIWKEYD_TENCENT_CREDENTIALS=x", "TIWKEYD_GRACE=1s", "VAULT_AUTH_METHOD=x", "TIWKEYD_TARGET=1"}, func(f Finding) { all = append(all, f) }); c != nil {
		t.Fatal("it is taken for right")
	}
	if n := count(all, Configuration, Fail); n != 6 {
		t.Errorf("%d failures, not 6: %+v", n, all)
	}
	if count(all, Variables, Warn) != 1 || count(all, Vault, Skip) != 1 || count(all, Tencent, Skip) != 1 {
		t.Errorf("%+v", all)
	}
	for _, f := range all {
		if f.Status == Fail && f.Mend == "" {
			t.Errorf("%+v", f)
		}
	}
	all = nil
	Misconfigured(errors.New("just one"), func(f Finding) { all = append(all, f) })
	if all[0].What != "just one" || all[0].Mend == "" {
		t.Errorf("%+v", all[0])
	}
	if len(config.Unknown([]string{"TIWKEYD_A=1", "TIWKEYD_A=2", "TIWKEYD_SERVICE_HOST=x"})) != 1 {
		t.Error("unknown variables")
	}
}
