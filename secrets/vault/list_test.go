package vault

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestTargets lists what a real Vault has.
func TestTargets(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	s, _ := open(t, v.Addr, map[string]string{"VAULT_TOKEN": v.Token})
	s.prefix = "listed"
	list := func(known ...secrets.Target) string {
		t.Helper()
		all, strange, err := s.Targets(t.Context(), known)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(all, secrets.Target.Compare)
		return fmt.Sprint(all, strange)
	}
	if got := list(); got != "[] 0" {
		t.Errorf("of nothing: %s", got)
	}
	ts := []secrets.Target{{SdkAppID: 5, Service: secrets.OnlineRecord}, {SdkAppID: 5, Service: secrets.WhiteboardPush}, {SdkAppID: 1400000001, Service: secrets.Transcode}}
	for i, target := range ts {
		if _, err := s.Write(t.Context(), target, storetest.Keyring(target, i+1), 0); err != nil {
			t.Fatal(err)
		}
	}
	root := v.Client(v.Token)
	for _, name := range []string{"listed/7/recordings", "listed/x/transcode", "listed/007/transcode", "listed/9"} {
		if _, err := root.KVv2("secret").Put(t.Context(), name, map[string]any{"a": "b"}); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprint(ts, 4)
	if got := list(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// A known folder is not looked into again, unless it is gone.
	other := secrets.Target{SdkAppID: 5, Service: secrets.Transcode}
	if got := list(other, secrets.Target{SdkAppID: 6, Service: secrets.Transcode}); got != fmt.Sprint([]secrets.Target{other, ts[2]}, 4) {
		t.Errorf("with one known: %s", got)
	}
	v.Policy("no-list", `path "secret/data/listed/*" { capabilities = ["create", "read", "update"] }`)
	poor, _ := open(t, v.Addr, map[string]string{"VAULT_TOKEN": v.NewToken("no-list", "1h")})
	poor.prefix = "listed"
	if _, _, err := poor.Targets(t.Context(), nil); err == nil || !strings.Contains(err.Error(), `lacks the capability list on "secret/metadata/listed"`) {
		t.Errorf("without the capability: %v", err)
	}
}

// TestPages has servers that give pages, that give all at once, and that give the same whatever is
// asked for.
func TestPages(t *testing.T) {
	for _, r := range []struct {
		pages, names, want, requests int
	}{{1, 2500, 2500, 3}, {1, 1000, 1000, 2}, {0, 2500, 2500, 1}, {0, 1000, 1000, 2}} {
		var requests atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasPrefix(req.URL.Path, "/v1/secret/metadata/") {
				_, _ = fmt.Fprint(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
				return
			}
			requests.Add(1)
			first, last := 0, r.names
			if r.pages > 0 {
				for first < r.names && fmt.Sprintf("%06d/", first) <= req.URL.Query().Get("after") {
					first++
				}
				last = min(first+listPage, r.names)
			}
			var names []string
			for i := first; i < last; i++ {
				names = append(names, fmt.Sprintf("%06d/", i))
			}
			if len(names) == 0 {
				w.WriteHeader(http.StatusNotFound)
				_, _ = fmt.Fprint(w, `{"errors":[]}`)
				return
			}
			_, _ = fmt.Fprintf(w, `{"data":{"keys":["%s"]}}`, strings.Join(names, `","`))
		}))
		s, _ := open(t, server.URL, map[string]string{"VAULT_TOKEN": "t"})
		names, err := s.list(t.Context(), "tiw", listPage)
		if err != nil || len(names) != r.want || int(requests.Load()) != r.requests {
			t.Errorf("%+v: %d names in %d requests, %v", r, len(names), requests.Load(), err)
		}
		server.Close()
	}
}

// TestManyFolders lists more folders than at one time: each once, and an error of any ends it.
func TestManyFolders(t *testing.T) {
	const folders = 3*listWidth + 1
	var asked, broken atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		folder, inside := strings.CutPrefix(req.URL.Path, "/v1/secret/metadata/tiw/")
		switch {
		case strings.HasPrefix(req.URL.Path, "/v1/sys/"):
			_, _ = fmt.Fprint(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
		case !inside:
			var names []string
			for i := range folders {
				names = append(names, fmt.Sprintf("%d/", i+1))
			}
			_, _ = fmt.Fprintf(w, `{"data":{"keys":["%s"]}}`, strings.Join(names, `","`))
		case folder == fmt.Sprint(broken.Load()):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `{"errors":["no such thing"]}`)
		default:
			asked.Add(1)
			_, _ = fmt.Fprint(w, `{"data":{"keys":["transcode"]}}`)
		}
	}))
	defer server.Close()
	s, _ := open(t, server.URL, map[string]string{"VAULT_TOKEN": "t"})
	all, strange, err := s.Targets(t.Context(), nil)
	slices.SortFunc(all, secrets.Target.Compare)
	if once := slices.Compact(slices.Clone(all)); err != nil || strange != 0 || len(all) != folders || len(once) != folders || asked.Load() != folders {
		t.Errorf("%d targets, %d of them different, %d strange, %d folders asked for: %v", len(all), len(once), strange, asked.Load(), err)
	}
	for _, i := range []int32{1, listWidth, folders} {
		broken.Store(i)
		if _, _, err := s.Targets(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("with folder %d broken: %v", i, err)
		}
	}
}
