package vault

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tiwkeyd/secrets/storetest"
)

// TestAnswers has servers say what Vault says, what it says of what is gone, and what only
// something else would say. A proxy's page is never taken for a secret or a folder that is not there.
func TestAnswers(t *testing.T) {
	const meta = `"metadata":{"version":3,"created_time":"2026-01-02T03:04:05.678Z","deletion_time":"%s"}`
	stays, goes := fmt.Sprintf(meta, ""), fmt.Sprintf(meta, "2026-02-02T03:04:05Z")
	for name, c := range map[string]struct {
		code         int
		body         string
		secret, keys string
	}{
		"a secret":           {200, `{"data":{"data":{"a":1.50},` + stays + `}}`, `3 {"a":1.50} never`, "[]"},
		"one that will go":   {200, `{"data":{"data":{"a":1},` + goes + `}}`, `3 {"a":1} 2026-02-02`, "[]"},
		"a deleted one":      {404, `{"data":{"data":null,` + goes + `}}`, `3  2026-02-02`, "[]"},
		"none":               {404, `{"errors":[]}`, "0  never", "[]"},
		"none, said shortly": {404, ``, "0  never", "[]"},
		"a folder":           {200, `{"data":{"keys":["1/","2/"]}}`, "not that of a KV version 2", "[1/ 2/]"},
		"none, with warning": {200, `{"data":{},"warnings":["limit"]}`, "not that of a KV version 2", "[]"},
		"no version":         {200, `{"data":{"data":{"a":1}}}`, "not that of a KV version 2", "[]"},
		"no time":            {200, `{"data":{"data":{"a":1},` + fmt.Sprintf(meta, "soon") + `}}`, "deletion_time", "[]"},
		"no data":            {200, `{}`, "not that of a KV version 2", "not that of a KV version 2"},
		"a page":             {200, `<html>welcome</html>`, "not that of a KV version 2", "not that of a KV version 2"},
		"nothing":            {200, ``, "not that of a KV version 2", "not that of a KV version 2"},
		"a page of none":     {404, `<html>none</html>`, "an answer that is not Vault's", "an answer that is not Vault's"},
		"a page of an error": {400, `<html>no</html>`, "an answer that is not Vault's", "an answer that is not Vault's"},
		"an error":           {400, `{"errors":["no such thing"]}`, "no such thing", "no such thing"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				_, _ = fmt.Fprint(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
				return
			}
			w.WriteHeader(c.code)
			_, _ = fmt.Fprint(w, c.body)
		}))
		s, log := open(t, server.URL, map[string]string{"VAULT_TOKEN": "t"})
		v, err := s.Secret(t.Context(), storetest.Target(), 0)
		at := "never"
		if !v.Deletes.IsZero() {
			at = v.Deletes.Format("2006-01-02")
		}
		if got := fmt.Sprintf("%d %s %s", v.Number, v.Content, at); err == nil && got != c.secret || err != nil && !strings.Contains(err.Error(), c.secret) {
			t.Errorf("%s: the secret is %q, %v", name, got, err)
		}
		names, err := s.list(t.Context(), "tiw", 0)
		if got := fmt.Sprint(names); err == nil && got != c.keys || err != nil && !strings.Contains(err.Error(), c.keys) {
			t.Errorf("%s: the names are %s, %v", name, got, err)
		}
		shows(t, log, "welcome", err)
		server.Close()
	}
}
