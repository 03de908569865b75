package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tiwkeyd/secrets"
)

// TestKeyFiles: `verify` and `proxy` take the same files for keys, and refuse the same ones for the same reason, which
// is told without what is in the file. Once a file is mended, the proxy goes on by itself.
func TestKeyFiles(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	k, short := r.newKey(), secrets.NewKey("short", "CANARY7")
	r.secret(short.Reveal())
	key := k.Reveal()
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		key        secrets.Key
		want       string // of the refusal; "": it is taken
		warns      string
	}{
		{"a last line without an end", key, 0o600, k, "", ""},
		{"a mark at the beginning", "\ufeff" + key + "\r\n", 0o400, k, "", ""},
		{"a short key", short.Reveal() + "\n" + key + "\n", 0o600, k, "", "fewer than 8 characters"},
		{"a comment", key + "\n#" + key, 0o600, k, "line 2 is not a key", ""},
		{"null", "null", 0o600, k, "line 1 is not a key", ""},
		{"not ASCII", "\n" + key + "é", 0o600, k, "line 2 is not a key", ""},
		{"UTF-16", "\xff\xfe" + key, 0o600, k, "UTF-16", ""},
		{"readable by others", key, 0o644, k, "can be read by others (mode 0644, of user ", ""},
		{"readable by the group", key, 0o440, k, "chmod go= ", ""},
		{"writable by others", key, 0o606, k, "chmod go-w ", ""},
	} {
		path := filepath.Join(t.TempDir(), "keys")
		if err := errors.Join(os.WriteFile(path, []byte(c.text), 0o600), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		body := r.fresh(testTarget.SdkAppID, c.key)
		out, complaint, code := r.verdictOf(body, []string{"--key-file", path})
		if good := c.want == ""; good != (code == 0) || !good && (code != exitUnsettled || !strings.Contains(complaint, c.want) || !strings.Contains(complaint, path)) || !strings.Contains(complaint, c.warns) {
			t.Errorf("%s: verify: %d\n%s%s", c.name, code, out, complaint)
		}
		p := r.proxy(r.standing(nil), []string{"--key-file", path}, "TIWKEYD_STORE=")
		if c.want != "" {
			r.awaitOutput(p.process, c.want)
			if status, _ := get(t, p.metrics+"/readyz"); status != http.StatusServiceUnavailable {
				t.Errorf("%s: it is ready: %d", c.name, status)
			}
			mended := path + ".new"
			if err := errors.Join(os.WriteFile(mended, []byte(key), 0o600), os.Rename(mended, path)); err != nil {
				t.Fatal(err)
			}
		}
		r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
		if status, text := send(t, p.url, body); status != http.StatusOK {
			t.Errorf("%s: %d %s\n%s", c.name, status, text, p)
		}
		if c.warns != "" {
			r.awaitOutput(p.process, c.warns)
		}
		p.process.signal(15)
		<-p.done
	}
}
