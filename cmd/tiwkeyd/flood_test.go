package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/tencent/tiwtest"
)

// TestHugeFiles: a file of a gigabyte in the place of each that is read is refused with its name, and not
// taken into memory.
func TestHugeFiles(t *testing.T) {
	slow(t)
	t.Parallel()
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<30); err != nil { // of zeros that are nowhere
		t.Fatal(err)
	}
	body := filepath.Join(dir, "body")
	if err := os.WriteFile(body, tiwtest.Callback(testTarget.SdkAppID, "WhiteboardPushStarted", 1, oldKey, time.Now().Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream := []string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1"}
	target := testTarget.String()
	for _, c := range []struct {
		what string
		args []string
		env  []string
		says string
	}{
		{"--env-file", []string{"status", "--env-file", huge}, nil, huge + " is larger"},
		{"VAULT_TOKEN_FILE", []string{"status"}, []string{"TIWKEYD_STORE=vault", "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN_FILE=" + huge}, huge + " is larger"},
		{"--tls-cert", append(upstream, "--tls-cert", huge, "--tls-key", huge), nil, huge + " is larger"},
		{"a keyring of the file store", []string{"status"}, []string{"TIWKEYD_STORE=file://" + dir}, " is larger"},
		{"--file of verify", []string{"verify", target, "--file", huge}, nil, "is longer"},
		{"--key-file of verify", []string{"verify", target, "--file", body, "--key-file", huge}, nil, huge + " is larger"},
		{"--key-file of proxy", append(upstream, "--key-file", target+"="+huge), nil, "is larger"},
		{"a list to enroll", []string{"enroll", "--from-file", huge, "--format", "csv"}, nil, "larger"},
	} {
		r := newRig(t)
		if strings.Contains(c.what, "file store") {
			place := filepath.Join(dir, target+".json")
			if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(huge, place); err != nil {
				t.Fatal(err)
			}
		}
		p := r.start(c.args, c.env...)
		r.awaitOutput(p, c.says)
		if c.args[0] == "proxy" && !p.exited() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
		<-p.done
		if kB := p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; kB > 250<<10 && !raceEnabled { // of a gigabyte and more
			t.Errorf("%s: it took %d MB", c.what, kB>>10)
		}
		if strings.Contains(c.what, "file store") {
			if err := os.Rename(filepath.Join(dir, target+".json"), huge); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFloods: something that is no Vault answers the daemon with 64 MB. It takes a limited part of that into memory,
// says so, and lives.
func TestFloods(t *testing.T) {
	slow(t)
	t.Parallel()
	flood := func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, `{"Code":"Success","data":{"keys":["`)
		mega := strings.Repeat("x", 1<<20)
		for range 64 {
			if _, err := io.WriteString(w, mega); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"]}}`)
	}
	for _, c := range []struct {
		what    string
		env     func(url string) []string
		says    string
		handler http.HandlerFunc
	}{
		{"Vault", func(url string) []string {
			return []string{"TIWKEYD_STORE=vault", "VAULT_ADDR=" + url, "VAULT_TOKEN=CANARY-of-vault"}
		}, "longer than 4194304 bytes", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				_, _ = io.WriteString(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
				return
			}
			flood(w)
		}},
	} {
		server := httptest.NewServer(c.handler)
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		d := r.daemon(c.env(server.URL)...)
		r.awaitOutput(d, c.says)
		kB := highWater(t, d)
		t.Logf("%s: the daemon had %d MB at most", c.what, kB>>10)
		if kB > 150<<10 && !raceEnabled {
			t.Errorf("%s: it took %d MB", c.what, kB>>10)
		}
		server.Close()
	}
}
