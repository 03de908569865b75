package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

const (
	testID  = "AKIDtest"
	testKey = "CANARY-secret-key-of-tencent"
	oldKey  = "CANARY-key-from-before-tiwkeyd"
)

var testTarget = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

// rig is everything around the program: a TIW server, a store, a receiver under load, and a
// memory of all that was ever printed and of every secret there was.
type rig struct {
	t        testing.TB
	server   *tiwtest.Server
	store    rotator.Store
	env      []string
	receiver *tiwtest.Receiver
	sender   *tiwtest.Sender
	program  string // that start starts; "": this very one

	stdout, stderr *os.File // of what start starts; nil: the test's memory

	mu      sync.Mutex
	secrets []string
	outputs []*output
}

const propagation = time.Second

// slow marks a test that takes more than a second or two, which a short run leaves out.
func slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: runs with `make test` or `make e2e`")
	}
}

// newRig has a file store; useVault puts a real Vault in its place.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, secrets: []string{testKey, oldKey}}
	var err error
	if r.server, err = tiwtest.Start(tiwtest.Options{SignatureLife: 5 * time.Minute / speed}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.server.Close)
	r.server.AddCredential(testID, testKey, "")
	r.server.AddApp(testTarget.SdkAppID)
	r.server.OnApply(func(a tiwtest.Applied) { r.secret(a.Key) })
	dir := filepath.Join(t.TempDir(), "store")
	if r.store, err = file.Open(dir); err != nil {
		t.Fatal(err)
	}
	r.env = []string{"TEST_AS_TIWKEYD=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "TZ=UTC", "TIWKEYD_TARGETS=" + testTarget.String(), "TIWKEYD_STORE=file://" + dir,
		"TIWKEYD_PROPAGATION=" + propagation.String(), "TIWKEYD_SCHEDULE=@yearly", "TIWKEYD_LOG_LEVEL=debug", "TIWKEYD_GRACE=10m", "TIWKEYD_RECONCILE=1m", "TIWKEYD_HTTP_ADDR=",
		"TIWKEYD_TENCENT_ENDPOINT=" + r.server.URL, "TENCENTCLOUD_SECRET_ID=" + testID, "TENCENTCLOUD_SECRET_KEY=" + testKey, noRaceSleep}
	r.env = append(r.env, coverageGoes(t)...)
	t.Cleanup(r.noSecretShows)
	return r
}

// coverageGoes says where processes write their coverage, or each would print a warning.
func coverageGoes(t testing.TB) []string {
	if testing.CoverMode() == "" {
		return nil
	}
	return []string{"GOCOVERDIR=" + t.TempDir()}
}

func (r *rig) secret(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s != "" && !slices.Contains(r.secrets, s) {
		r.secrets = append(r.secrets, s)
	}
}

// useVault gives the program a token with the README's policy in a file, and this test a
// store of its own.
func (r *rig) useVault(v *vaulttest.Server) (tokenFile string) {
	r.t.Helper()
	v.Policy("tiwkeyd", readmePolicy(r.t))
	token := v.NewToken("tiwkeyd", "2h")
	r.secret(token)
	tokenFile = filepath.Join(r.t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.env = append(r.env, "TIWKEYD_STORE=vault", "VAULT_ADDR="+v.Addr, "VAULT_TOKEN_FILE="+tokenFile)
	r.store = storeIn(r.t, v.Addr, v.Token)
	return tokenFile
}

// storeIn is a store of the test's own at a Vault.
func storeIn(t testing.TB, address, token string) *vault.Store {
	t.Helper()
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	s, err := vault.New(vault.Options{Address: address, Mount: "secret", Prefix: "tiw", Login: login})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// readmePolicy is the policy that the README tells to use.
func readmePolicy(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```hcl\n")
	policy, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("the README has no policy")
	}
	return policy
}

// load starts the receiver, whose views are up to Propagation old, and callbacks to it.
func (r *rig) load(rate int) {
	r.t.Helper()
	r.receiver = tiwtest.NewReceiver(propagation, 25*time.Millisecond)
	web := httptest.NewServer(http.HandlerFunc(r.receiver.ServeHTTP))
	r.sender = tiwtest.NewSender(r.server, web.URL, tiwtest.Source{App: testTarget.SdkAppID, Service: string(testTarget.Service)})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.receiver.Watch(ctx, r.store, testTarget) })
	group.Go(func() { r.sender.Run(ctx, rate) })
	r.t.Cleanup(func() {
		cancel()
		group.Wait()
		web.Close()
		r.noneRefused()
	})
}

func (r *rig) noneRefused() {
	c := r.sender.Counts()
	r.t.Logf("callbacks: %d sent, %d verified, %d refused, %d failed", c.Sent, c.Verified, c.Refused, c.Failed)
	if c.Refused+c.Failed > 0 || c.Sent == 0 {
		r.t.Errorf("%d of %d callbacks were refused, %d failed; the first: %+v", c.Refused, c.Sent, c.Failed, c.Refusals[:min(2, len(c.Refusals))])
	}
}

// output is what a process prints, all of it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is a running program.
type process struct {
	*output
	cmd  *exec.Cmd
	done chan struct{}
	code int
}

func (r *rig) start(args []string, env ...string) *process {
	r.t.Helper()
	program := r.program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			r.t.Fatal(err)
		}
	}
	return r.startProgram(program, args, env...)
}

func (r *rig) startProgram(program string, args []string, env ...string) *process {
	r.t.Helper()
	p := &process{output: &output{}, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env = append(append([]string{}, r.env...), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if r.stdout != nil {
		p.cmd.Stdout = r.stdout
	}
	if r.stderr != nil {
		p.cmd.Stderr = r.stderr
	}
	endWithUs(p.cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the parent of Pdeathsig is this thread
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			p.code = p.cmd.ProcessState.ExitCode()
		}
	}()
	if err := <-started; err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	r.mu.Lock()
	r.outputs = append(r.outputs, p.output)
	r.mu.Unlock()
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid)); err == nil {
		r.mu.Lock()
		r.outputs = append(r.outputs, &output{b: *bytes.NewBuffer(line)})
		r.mu.Unlock()
	}
	return p
}

// daemon starts `run` and waits until it says what it is going to do.
func (r *rig) daemon(env ...string) *process {
	r.t.Helper()
	p := r.start([]string{"run"}, env...)
	r.awaitOutput(p, "serves these targets")
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// run runs a command to its end.
func (r *rig) run(args []string, env ...string) (string, int) {
	r.t.Helper()
	p := r.start(args, env...)
	<-p.done
	return p.String(), p.code
}

// hang ends a wait that would never end; nothing is measured with it.
const hang = 2 * time.Minute

func (r *rig) await(what string, condition func() bool) {
	r.t.Helper()
	limit := time.NewTimer(hang)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			for _, o := range r.outputs[max(0, len(r.outputs)-6):] {
				r.t.Log(tail(o.String()))
			}
			r.t.Fatalf("it never came to this: %s", what)
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

func (r *rig) awaitOutput(p *process, text string) {
	r.t.Helper()
	r.await("the program prints "+text, func() bool { return strings.Contains(p.String(), text) || p.exited() })
	if !strings.Contains(p.String(), text) {
		r.t.Fatalf("it ended with %d before it printed %q:\n%s", p.code, text, p.String())
	}
}

// keyring reads the keyring; every key in it is a secret that must not show.
func (r *rig) keyring() *rotator.Keyring {
	s, err := r.store.Read(context.Background(), testTarget)
	if err != nil || s.Keyring == nil {
		return nil
	}
	for _, e := range s.Keyring.Keys {
		r.secret(e.Key.Reveal())
	}
	return s.Keyring
}

func (r *rig) currentID() string {
	if k := r.keyring(); k != nil {
		return k.CallbackKey().ID()
	}
	return ""
}

// settled reports whether the current key is in force and nothing is in hand.
func (r *rig) settled() bool {
	k := r.keyring()
	return k != nil && k.Rotation == nil && k.CallbackKey().Reveal() == r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))
}

func (r *rig) setCalls() int { return r.server.Calls("SetWhiteboardPushCallbackKey") }

// noSecretShows searches all that was ever printed.
func (r *rig) noSecretShows() {
	if r.t.Skipped() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.outputs {
		text := o.String()
		for _, s := range r.secrets {
			if strings.Contains(text, s) {
				r.t.Error("a secret shows in the output of the program")
			}
		}
		if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") || strings.Contains(text, "goroutine 1 [") {
			r.t.Errorf("a program crashed:\n%s", tail(text))
		}
	}
	if len(r.outputs) == 0 {
		r.t.Error("nothing was ever printed")
	}
	if dir := os.Getenv("TIWKEYD_TEST_OUTPUT"); dir != "" && r.t.Failed() {
		for i, o := range r.outputs {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.log", strings.ReplaceAll(r.t.Name(), "/", "-"), i))
			if err := os.WriteFile(path, []byte(o.String()), 0o600); err != nil {
				r.t.Error(err)
			}
		}
	}
}

// needsProc leaves out, on other systems than Linux, a test that looks into the process from outside.
func needsProc(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc to look into")
	}
}
