package bounded

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := File(path, 10); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for size, good := range map[int]bool{0: true, 10: true, 11: false, 1000: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := File(path, 10); (err == nil) != good || len(got) > 11 || good && len(got) != size || !good && !strings.Contains(err.Error(), path) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
}

// TestTransport reads answers just below and just above the limit, with and without Content-Length, packed and
// unpacked. A longer one gives an error, and never more bytes than the limit, however often it is read.
func TestTransport(t *testing.T) {
	const most = 1000
	for _, c := range []struct {
		what   string
		bytes  int
		packed bool
		told   bool
		code   int
		long   bool
	}{
		{"nothing", 0, false, true, 200, false}, {"as much as it may", most, false, true, 200, false}, {"the same, not told of", most, false, false, 200, false}, {"the same, packed", most, true, false, 200, false},
		{"one more", most + 1, false, true, 200, true}, {"one more, not told of", most + 1, false, false, 200, true}, {"one more, of an error", most + 1, false, false, 500, true}, {"a bomb", 100 * most, true, false, 404, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			text := strings.Repeat("x", c.bytes)
			var to io.Writer = w
			if c.packed {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				defer func() { _ = z.Close() }()
				to = z
			}
			w.WriteHeader(c.code)
			if !c.told {
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = io.WriteString(to, text)
		}))
		client := &http.Client{Transport: Transport{&http.Transport{}, most}}
		for how, through := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			res, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(through(res.Body))
			var long TooLong
			if errors.As(err, &long) != c.long || !c.long && (err != nil || len(got) != c.bytes) || len(got) > most || c.long && long != most {
				t.Errorf("%s, %s: %d bytes, %v", c.what, how, len(got), err)
			}
			if _, again := io.ReadAll(res.Body); c.long && !errors.As(again, &long) {
				t.Errorf("%s, %s: read once more it is %v", c.what, how, again)
			}
			if !c.long {
				_ = res.Body.Close()
			} // else the connection has ended by itself, or the server would not close
		}
		client.CloseIdleConnections()
		server.Close()
	}
}
