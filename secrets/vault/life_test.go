package vault

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// tokensEnd is known of a token however it came: renewed here, logged in for, or renewed by
// somebody else, who may have done it a moment ago.
func tokensEnd(t *testing.T, v *vaulttest.Server) {
	// about reports whether a store's token ends so far from now, give or take what passed since.
	about := func(s *Store, ttl time.Duration) bool {
		until, known := s.TokenExpiry()
		left := time.Until(until)
		return known && left <= ttl && left > ttl-hourish
	}
	read := func(s *Store) {
		t.Helper()
		if _, err := s.Read(t.Context(), storetest.Target()); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := open(t, v.Addr, withToken(v.NewToken("tiwkeyd", "30h")))
	if _, known := s.TokenExpiry(); known {
		t.Error("known before the first call")
	}
	read(s)
	if !about(s, 30*time.Hour) {
		t.Error("a token that is renewed here")
	}

	s, _ = open(t, v.Addr, withToken(v.Token))
	s.TokenExpiry()
	read(s)
	read(s)
	s.session.group.Wait()
	if _, known := s.TokenExpiry(); known {
		t.Error("root's token ends")
	}

	roleID, secretID := v.AppRole("ending", "tiwkeyd", "20h", "40h")
	s, _ = open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": secretID})
	read(s)
	if !about(s, 20*time.Hour) {
		t.Error("a token that was logged in for")
	}

	path := filepath.Join(t.TempDir(), "token")
	hand := func(token string) {
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := v.NewToken("tiwkeyd", "10h")
	hand(first)
	s, _ = open(t, v.Addr, map[string]string{"VAULT_TOKEN_FILE": path})
	read(s)
	s.session.group.Wait()
	if s.session.life.asked != (time.Time{}) {
		t.Error("Vault was asked though nobody wants to know")
	}
	s.TokenExpiry()
	read(s)
	s.session.group.Wait()
	if !about(s, 10*time.Hour) {
		t.Error("a token from a file")
	}
	// The next one is known at once, and not looked up at every call.
	hand(v.NewToken("tiwkeyd", "5h"))
	read(s)
	s.session.group.Wait()
	if !about(s, 5*time.Hour) {
		t.Error("the next one")
	}
	asked := s.session.life.asked
	read(s)
	s.session.group.Wait()
	if s.session.life.asked != asked {
		t.Error("looked up at every call")
	}
	s.session.life.asked = time.Now().Add(-lookUpEvery)
	read(s)
	s.session.group.Wait()
	if s.session.life.asked.Equal(asked) {
		t.Error("never looked up again")
	}
}

// hourish is more than this test takes, and less than its tokens differ by.
const hourish = time.Hour
