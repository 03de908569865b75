package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestFirstRotation does what docs/first-rotation.md does, command by command, on a Vault with
// nothing in it, and compares what is printed with what the page shows.
func TestFirstRotation(t *testing.T) {
	t.Parallel()
	const page = "../../docs/first-rotation.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(t)
	rotated := false
	for i, step := range consoleSteps(string(text)) {
		if strings.HasPrefix(step.command, "# ") { // what somebody else does meanwhile, in Tencent's console
			w.r.server.RefuseAlways(testTarget.SdkAppID, "Describe", "")
			continue
		}
		got := w.do(step.command)
		if !alikeLines(step.output, got) {
			t.Errorf("step %d, `%s`, prints\n%s\nand %s shows\n%s", i+1, step.command, got, page, step.output)
		}
		rotated = rotated || strings.HasSuffix(step.command, "tiwkeyd rotate") && strings.Contains(got, "in force, and current")
	}
	if !rotated || !w.r.settled() {
		t.Error("the page does not come to a rotation")
	}
}

// step is a command of the page, and what the page says that it prints.
type step struct{ command, output string }

// consoleSteps reads the blocks of a page that show a terminal.
func consoleSteps(text string) []step {
	var steps []step
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			steps = append(steps, step{command: command})
		case inside:
			steps[len(steps)-1].output += line + "\n"
		}
	}
	return steps
}

// walk is a newcomer's terminal.
type walk struct {
	t       *testing.T
	r       *rig
	v       *vaulttest.Server
	dir     string
	exports []string
	real    *strings.Replacer // of the page's names
	shown   *strings.Replacer // for what is printed
}

// newWalk has Vault's administrator at the terminal, no variable set, no mount and no policy in
// Vault, and an application at Tencent that the credential may not look at yet.
func newWalk(t *testing.T) *walk {
	t.Helper()
	r, v := newRig(t), vaulttest.Start(t)
	r.useVault(v)
	sys := v.Client(v.Token).Sys()
	for _, err := range []error{sys.Unmount("secret"), sys.DeletePolicy("tiwkeyd")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const secretKey = "example-secret-key"
	r.secret(secretKey)
	r.secret(v.Token)
	r.server.AddCredential("AKIDexample", secretKey, "")
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.server.RefuseAlways(testTarget.SdkAppID, "Describe", "UnauthorizedOperation")

	w := &walk{t: t, r: r, v: v, dir: t.TempDir()}
	const vaultAddr, endpoint = "https://vault.example.com:8200", "tiw.tencentcloudapi.com"
	w.real = strings.NewReplacer(vaultAddr, v.Addr)
	w.shown = strings.NewReplacer(v.Addr, vaultAddr, r.server.URL, endpoint)
	r.env = []string{"TEST_AS_TIWKEYD=1", "TEST_PROPAGATION=" + propagation.String(), "HOME=" + lastOf(r.env, "HOME"), "TZ=UTC", "TIWKEYD_LOG_LEVEL=error",
		"TIWKEYD_TENCENT_ENDPOINT=" + r.server.URL, "PATH=" + filepath.Join(w.dir, "bin") + ":" + os.Getenv("PATH"), noRaceSleep}
	r.env = append(r.env, coverageGoes(t)...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(lastOf(r.env, "HOME"), ".vault-token"), []byte(v.Token), 0o600))
	self, err := os.Executable()
	must(err)
	vault := vaulttest.Full.Need(t)
	deploy, err := filepath.Abs("../../deploy")
	must(err)
	must(os.Mkdir(filepath.Join(w.dir, "bin"), 0o700))
	must(os.Symlink(self, filepath.Join(w.dir, "bin", "tiwkeyd")))
	must(os.Symlink(vault, filepath.Join(w.dir, "bin", "vault")))
	must(os.Symlink(deploy, filepath.Join(w.dir, "deploy")))
	return w
}

// do runs a command with all that was exported before it, and gives what is printed.
func (w *walk) do(command string) string {
	w.t.Helper()
	command = w.real.Replace(command)
	if strings.HasPrefix(command, "export ") {
		w.exports = append(w.exports, command)
		return ""
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		w.t.Fatal(err)
	}
	script := filepath.Join(w.dir, "command.sh")
	if err := os.WriteFile(script, []byte("cd "+w.dir+"\numask 077\n"+strings.Join(w.exports, "\n")+"\n"+command+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	p := w.r.startProgram(shell, []string{script})
	<-p.done
	if token, err := os.ReadFile(filepath.Join(w.dir, "vault-token")); err == nil {
		w.r.secret(strings.TrimSpace(string(token)))
	}
	if strings.Contains(command, "secrets enable") {
		// For a moment after that the engine is not ready yet.
		kv := w.v.Client(w.v.Token).KVv2("secret")
		w.r.await("the mount is ready", func() bool {
			_, err := kv.Put(w.t.Context(), "ready", map[string]any{"ready": true})
			return err == nil
		})
	}
	return w.shown.Replace(p.String())
}

// volatile is what is another thing every time.
var volatile = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d( UTC|Z)`), "TIME"},
	{regexp.MustCompile(`until \d\d:\d\d:\d\d`), "until TIME"},
	{regexp.MustCompile(`RequestId [\w-]+`), "RequestId ID"},
	{regexp.MustCompile(`key [0-9a-zA-Z]+:`), "key ID:"},
	{regexp.MustCompile(`it has \S+ left`), "it has SOME left"},
	{regexp.MustCompile(`Vault \d+\.\d+\.\d+`), "Vault VERSION"},
	{regexp.MustCompile(`to within \d+s`), "to within SOME"},
	// What there is besides the environment depends on the machine.
	{regexp.MustCompile(`are not both set; .* →`), "are not both set; … →"},
}

// alikeLines compares what the page shows with what was printed. A line `…` of the page stands
// for lines that are ok.
func alikeLines(shown, printed string) bool {
	return matchLines(plainLines(shown), plainLines(printed))
}

func matchLines(want, got []string) bool {
	switch {
	case len(want) == 0 || len(got) == 0:
		return len(want) == len(got)
	case want[0] == "…":
		return strings.HasPrefix(got[0], "ok ") && (matchLines(want[1:], got[1:]) || matchLines(want, got[1:]))
	}
	return want[0] == got[0] && matchLines(want[1:], got[1:])
}

func plainLines(text string) []string {
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.name)
	}
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return lines
}
