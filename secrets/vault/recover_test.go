package vault

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// sealedAtFirst starts with a Vault that is sealed: the token, which could not be renewed
// then, is renewed once Vault serves again, or it would run out for good.
func sealedAtFirst(t *testing.T, v *vaulttest.Server) {
	token := v.NewToken("tiwkeyd", "1h")
	v.Seal()
	s, log := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	_, err := s.Read(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("sealed: %v", err)
	}
	shows(t, log, token, err)
	v.Unseal()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	root := v.Client(v.Token)
	await(t, "a renewed token", func() bool {
		got, err := root.Auth().Token().Lookup(token)
		if err != nil {
			t.Fatal(err)
		}
		return got.Data["last_renewal"] != nil
	})
}

// ownWriteRespelt loses the answer to a write whose unknown members Vault gives back in
// another order and spelling.
func ownWriteRespelt(t *testing.T, v *vaulttest.Server, token string) {
	var lose atomic.Bool
	s, _ := open(t, proxy(t, v, func(r *http.Request) bool { return !isWrite(r) || !lose.Load() }), withToken(token))
	target := storetest.Target()
	k, err := rotator.DecodeKeyring(target, fmt.Appendf(nil, `{"schema":1,"sdk_app_id":%d,"service":"whiteboard-push",
		"future":{"z":1e2,"a":[1.50,"<b>"]},"keys":[{"id":"a","value":"%sx","state":"current"}]}`, target.SdkAppID, storetest.Canary))
	if err != nil {
		t.Fatal(err)
	}
	lose.Store(true)
	if got, err := s.Write(t.Context(), target, k, 0); err != nil || got != 1 {
		t.Errorf("an own write whose answer was lost: %d, %v", got, err)
	}
}

// numberTooLarge has an SdkAppId that Vault would round: it is refused before it is there
// and can never be read again.
func numberTooLarge(t *testing.T, v *vaulttest.Server, token string) {
	s, _ := open(t, v.Addr, withToken(token))
	for id, fits := range map[int64]bool{maxExact: true, maxExact + 1: false} {
		target := rotator.Target{SdkAppID: id, Service: rotator.WhiteboardPush}
		_, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
		if fits != (err == nil) {
			t.Errorf("SdkAppId %d: write: %v", id, err)
		}
		got, err := s.Read(t.Context(), target)
		if err != nil || fits != (got.Keyring != nil) {
			t.Errorf("SdkAppId %d: reads as %+v, %v", id, got, err)
		}
	}
}
