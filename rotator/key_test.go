package rotator

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"tiwkeyd/secrets"
)

const canary = "CANARYcanaryCANARYcanaryCANARYcanary"

// TestKeyNeverShows prints keys in every way and place.
func TestKeyNeverShows(t *testing.T) {
	t.Parallel()
	k := secrets.NewKey("public", canary)
	type hidden struct {
		key  secrets.Key
		keys []secrets.Key
		ring *Keyring
	}
	ring := &Keyring{Target: secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}, Keys: []Entry{{Key: k, State: Current}}}
	values := []any{k, &k, hidden{k, []secrets.Key{k}, ring}, &hidden{k, []secrets.Key{k}, ring}, []secrets.Key{k}, map[string]secrets.Key{"k": k}, ring, *ring,
		Snapshot{Keyring: ring}, Observation{Key: k, Refused: k}, Event{Key: k}, fmt.Errorf("x %w %v", errors.New("y"), k), track{pending: k, snap: Snapshot{Keyring: ring}}}
	var out bytes.Buffer
	for _, verb := range "vsqxXdbotTeEfFgGcUpw" {
		for _, flag := range []string{"", "+", "#", " ", "0", "-20", ".3"} {
			for _, v := range values {
				fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", v)
			}
		}
	}
	fmt.Fprintln(&out, values...)
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		for _, v := range values {
			slog.New(h).Info("message", "value", v, slog.Group("group", "value", v))
		}
	}
	for _, v := range values {
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	if err := gob.NewEncoder(&out).Encode(k); err == nil {
		t.Error("a key was gob-encoded")
	}
	func() {
		defer func() { fmt.Fprint(&out, recover()) }()
		panic(k)
	}()
	text := out.String()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("%v", []byte(canary)), strings.ToLower(canary)} {
		if strings.Contains(text, form) {
			i := strings.Index(text, form)
			t.Fatalf("a key shows as %q near %q", form, text[max(0, i-80):i])
		}
	}
	if !strings.Contains(text, "public") {
		t.Error("not even its id shows")
	}
	if got := fmt.Sprint(secrets.Key{}, secrets.NewKey("", "x")); got != "none unknown" {
		t.Errorf("the zero key and one without id print %q", got)
	}
	if k.UnmarshalText([]byte("x")) == nil {
		t.Error("a key was read from text")
	}
}
