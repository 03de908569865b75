package main

import (
	"strings"
	"testing"
	"unicode"

	"tiwkeyd/rotator"
	"tiwkeyd/tencent/tiwtest"
)

// TestForeignText: what Tencent or a keyring says cannot give a terminal orders, nor make up a line of its own.
func TestForeignText(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	const orders = "\x1b]0;title\x07\x1b[2J\r\nok    everything is well\u202e"
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	harmless := func(out string) {
		t.Helper()
		if strings.ContainsFunc(out, func(c rune) bool { return c != '\n' && (unicode.IsControl(c) || c == '\u202e') }) || strings.Contains(out, "\nok    everything") {
			t.Errorf("%q", out)
		}
		if !strings.Contains(out, `\x1b]0;title\x07`) {
			t.Errorf("nothing of it is shown: %q", out)
		}
	}
	r.server.Plan("Set", 0, tiwtest.Refuse("AuthFailure."+orders))
	out, code := r.run([]string{"rotate", "--timeout", "20s"})
	if code != exitRefused {
		t.Errorf("rotate ended with %d", code)
	}
	harmless(out)
	out, _ = r.run([]string{"status"})
	harmless(out)

	s, err := r.store.Read(t.Context(), testTarget)
	if err != nil {
		t.Fatal(err)
	}
	s.Keyring.Rotation.LastError = &rotator.Failure{Code: "Odd", Message: orders, RequestID: orders, At: s.Written}
	s.Keyring.Revision = ""
	if _, err := r.store.Write(t.Context(), testTarget, s.Keyring, s.Version); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"check"}} {
		out, _ = r.run(args)
		harmless(out)
	}
}
