//go:build receivers

package receivers_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tools are the programs that the script may run.
var tools = []string{"jq", "sed", "awk", "md5sum", "head", "date"}

// script is receiver.sh with a keyring file.
type script struct {
	path    string // of the programs
	keyring string
}

func newScript(t *testing.T, keyring []byte) *script {
	t.Helper()
	need(t, "jq", []string{"jq", "--version"})
	need(t, "coreutils mawk sed", []string{"md5sum", "--version"}, []string{"awk", "1", "/dev/null"}, []string{"sed", "", "/dev/null"})
	s := &script{path: os.Getenv("PATH"), keyring: filepath.Join(t.TempDir(), "keyring.json")}
	if keyring != nil {
		replace(t, s.keyring, keyring)
	}
	return s
}

// run gives the exit status and what is on stderr.
func (s *script) run(t *testing.T, body []byte) (int, string) {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), sh, "receiver.sh")
	cmd.Stdin = bytes.NewReader(body)
	cmd.Env = []string{"PATH=" + s.path, "KEYRING=" + s.keyring, "SDK_APP_ID=" + appText}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	refuseCanaries(t, "the script's output", stdout.String()+stderr.String())
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if err == nil && stderr.Len() > 0 {
		t.Errorf("it is content, and says %q", stderr.String())
	}
	if err != nil && strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("it says %q, where one line should say why", stderr.String())
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func TestScript(t *testing.T) {
	s := newScript(t, keyring(t, previous, current, pending))
	for _, w := range wants() {
		status, said := s.run(t, w.body)
		answers := map[int][]int{0: {http.StatusOK}, 1: {http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge}}[status]
		if !slices.ContainsFunc(answers, func(code int) bool { return slices.Contains(w.verdict, code) }) {
			t.Errorf("%s: exit status %d (%q), where servers answer one of %v", short(w.name), status, said, w.verdict)
		}
	}
}

// TestScriptKeys shows that the script reads the file at each run, and has a status of its
// own for having no keys.
func TestScriptKeys(t *testing.T) {
	s := newScript(t, nil)
	expect := func(key string, want int) {
		t.Helper()
		if status, said := s.run(t, callback(key)); status != want {
			t.Errorf("exit status %d (%q), where it must be %d", status, said, want)
		}
	}
	expect(current, 2)
	for _, content := range []string{"", "null", "{", `{"accept":[]}`, `{"accept":null}`, `{"accept":"x"}`, `{"accept":{"a":"` + current + `"}}`, `{"accept":["` + current + `",""]}`,
		`{"accept":["` + current + `",1]}`, `{"accept":["` + current + `\n"]}`, `["` + current + `"]`, `{"accept":["` + current + `"]}{`} {
		replace(t, s.keyring, []byte(content))
		expect(current, 2)
	}
	replace(t, s.keyring, keyring(t, previous, current, ""))
	expect(previous, 0)
	expect(current, 0)
	expect(pending, 1)
	replace(t, s.keyring, keyring(t, "", current, pending))
	expect(previous, 1)
	expect(pending, 0)
	replace(t, s.keyring, []byte(`{"accept":["with space \\ and %s * $(x)"]}`))
	expect(`with space \ and %s * $(x)`, 0)
}

// TestScriptSecrecy lets the script find no program but ones which note how they were called.
func TestScriptSecrecy(t *testing.T) {
	s := newScript(t, keyring(t, previous, current, pending))
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes")
	env, err := exec.LookPath("env")
	if err != nil {
		t.Fatal(err)
	}
	s.path = filepath.Join(dir, "bin")
	if err := os.Mkdir(s.path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"printf", "echo", "test", "["}, tools...) {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		spy := fmt.Sprintf("#!/bin/sh\n{ echo %s \"$*\"; %s; } >> '%s'\nexec %s \"$@\"\n", name, env, notes, real)
		if err := os.WriteFile(filepath.Join(s.path, name), []byte(spy), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{previous, current, pending} {
		if status, said := s.run(t, callback(key)); status != 0 {
			t.Fatalf("exit status %d: %s", status, said)
		}
	}
	if status, _ := s.run(t, callback(foreign)); status != 1 {
		t.Fatalf("exit status %d", status)
	}
	noted, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	refuseCanaries(t, "arguments or the environment of a program", string(noted))
	for _, name := range tools {
		if !bytes.Contains(noted, []byte("\n"+name+" ")) {
			t.Errorf("%s was not seen to run, so the test sees too little", name)
		}
	}
	text, err := os.ReadFile("receiver.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(text), "\n")
	for _, line := range strings.Split(code, "\n") {
		if !strings.HasPrefix(line, "#") && strings.Contains(strings.ReplaceAll(line, "/dev/null", ""), "/bin/") {
			t.Errorf("a program is called past the test: %s", line)
		}
	}
}
