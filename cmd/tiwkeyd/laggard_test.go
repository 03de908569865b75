//go:build torture

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// memory is what nodes of Vault have told of each keyring, version by version.
type memory struct {
	mu   sync.Mutex
	told map[string][]tale // by the path of the secret
}

// tale is an answer that was true once.
type tale struct {
	version int64
	body    []byte
}

// remembered is how many versions a node that lags may tell.
const remembered = 12

func (m *memory) hear(path string, body []byte) {
	var answer struct {
		Data struct {
			Metadata struct{ Version int64 }
		}
	}
	if json.Unmarshal(body, &answer) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all, version := m.told[path], answer.Data.Metadata.Version
	if version > 0 && !slices.ContainsFunc(all, func(t tale) bool { return t.version == version }) {
		all = append(all, tale{version, body})
		m.told[path] = all[max(0, len(all)-remembered):]
	}
}

// forgotten is a keyring that was deleted with its metadata, of which no read may come any more.
func (w *torture) forgotten(secret string) {
	path := "/v1/secret/data/" + secret
	w.memory.mu.Lock()
	delete(w.memory.told, path)
	w.memory.mu.Unlock()
	for _, l := range w.laggards {
		l.mu.Lock()
		delete(l.frozen, path)
		l.mu.Unlock()
	}
}

// laggard stands before a node of Vault that tells, while it lags, what keyrings were: always
// the same old version, or one after another, with the truth among them. Writes, and all else, get through.
type laggard struct {
	http.Handler
	memory *memory

	mu     sync.Mutex
	random *rand.Rand
	mode   lag
	frozen map[string][]byte // by path, while it tells one version
	told   int               // answers that were not the node's own
}

type lag int

const (
	honest lag = iota
	frozen
	alternating
)

// before starts one in front of a node, and gives its URL.
func (w *torture) before(node string, seed uint64) (*laggard, string) {
	to, err := url.Parse(node)
	if err != nil {
		w.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	proxy.Transport, proxy.ErrorLog = transport, log.New(io.Discard, "", 0)
	// A node that is away gives no answer, as it would without this proxy before it.
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	l := &laggard{Handler: proxy, memory: w.memory, random: rand.New(rand.NewPCG(seed, 0)), frozen: map[string][]byte{}}
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.StatusCode != http.StatusOK || !ofKeyring(res.Request) {
			return nil
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		res.Body = io.NopCloser(bytes.NewReader(body))
		l.memory.hear(res.Request.URL.Path, body)
		return nil
	}
	web := httptest.NewServer(l)
	w.t.Cleanup(func() { web.CloseClientConnections(); web.Close(); transport.CloseIdleConnections() })
	return l, web.URL
}

// ofKeyring tells reads of the current version of a keyring.
func ofKeyring(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/data/tiw/") && r.URL.RawQuery == ""
}

func (l *laggard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.tells(w, r) {
		l.Handler.ServeHTTP(w, r)
	}
}

// tells answers a read with what was, if it does at present.
func (l *laggard) tells(w http.ResponseWriter, r *http.Request) bool {
	if !ofKeyring(r) {
		return false
	}
	old := l.old(r.URL.Path)
	if old == nil {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(old)))
	_, _ = w.Write(old)
	return true
}

// old is what it tells of a keyring; nil: the truth.
func (l *laggard) old(path string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.memory.mu.Lock()
	all := l.memory.told[path]
	l.memory.mu.Unlock()
	if l.mode == honest || len(all) == 0 || (l.mode == alternating && l.random.IntN(3) == 0) {
		return nil
	}
	old := all[l.random.IntN(len(all))].body
	if l.mode == frozen {
		if l.frozen[path] == nil {
			l.frozen[path] = old
		}
		old = l.frozen[path]
	}
	l.told++
	return old
}

// lags has the node before a daemon tell what was.
func (w *torture) lags(mode lag) func(int) func() error {
	return func(i int) func() error {
		l := w.laggards[i]
		set := func(mode lag) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.mode = mode
			clear(l.frozen)
		}
		set(mode)
		return func() error { set(honest); return nil }
	}
}
