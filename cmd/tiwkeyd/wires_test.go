//go:build torture

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// wires are TCP connections that can be cut and made slow.
type wires struct {
	t      testing.TB
	server *toxiproxy.ApiServer
}

// wire is the way from one program to an address.
type wire struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	away  bool
}

func newWires(t testing.TB) *wires {
	return &wires{t, toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// to gives a wire to the address of a URL, and the URL that leads over it.
func (w *wires) to(name, url string) (*wire, string) {
	w.t.Helper()
	p := toxiproxy.NewProxy(w.server, name, "127.0.0.1:0", strings.TrimPrefix(url, "http://"))
	if err := p.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Stop)
	return &wire{t: w.t, proxy: p}, "http://" + p.Listen
}

// cut breaks all connections and takes no new ones, until mend.
func (w *wire) cut() {
	w.away = true
	w.proxy.Stop()
}

// spoil has a toxic of a kind act on what comes back, or on what is sent, until mend.
func (w *wire) spoil(kind, stream string, attributes map[string]int) error {
	text, err := json.Marshal(map[string]any{"name": "toxic", "type": kind, "stream": stream, "attributes": attributes})
	if err != nil {
		return err
	}
	_, err = w.proxy.Toxics.AddToxicJson(bytes.NewReader(text))
	return err
}

// mend has the wire do again what it should.
func (w *wire) mend() error {
	w.proxy.Toxics.ResetToxics(context.Background())
	if !w.away {
		return nil
	}
	if err := w.proxy.Start(); err != nil {
		return err
	}
	w.away = false
	return nil
}
