// Package storetest holds what every rotator.Store must do, as a test to run against it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Canary is the start of every key in the tests: no text may ever show it.
const Canary = "CANARY"

var counter atomic.Int64

// Target gives a target that no other test uses.
func Target() secrets.Target {
	return secrets.Target{SdkAppID: 1400000000 + counter.Add(1), Service: secrets.WhiteboardPush}
}

// Keyring makes a keyring of t whose current key is the nth.
func Keyring(t secrets.Target, n int) *rotator.Keyring {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	value := fmt.Sprintf("%s%058d", Canary, n)
	return &rotator.Keyring{Target: t, RotatedAt: at, Life: "life",
		Keys: []rotator.Entry{{Key: secrets.NewKey(fmt.Sprintf("id%d", n), value), State: rotator.Current, CreatedAt: at, ActivatedAt: at}}}
}

// Quiet fails the test if an error shows a key.
func Quiet(tb testing.TB, err error) {
	tb.Helper()
	if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), Canary) {
		tb.Errorf("an error shows a key: %q", strings.ReplaceAll(err.Error(), Canary, "******"))
	}
}

// Run runs the suite. open gives another Store over the same data at every call, as another
// process would have.
func Run(t *testing.T, open func(*testing.T) rotator.Store) {
	for name, test := range map[string]func(*testing.T, func(*testing.T) rotator.Store){
		"absent": absent, "create and replace": replace, "conflict": conflict, "the same content": sameContent, "race": race,
		"unknown members": unknown, "other targets": others, "purge": purge, "cancelled": cancelled,
		"invalid": invalid, "name": name,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func name(t *testing.T, open func(*testing.T) rotator.Store) {
	if s := open(t).String(); s == "" || strings.Contains(s, Canary) {
		t.Errorf("the store calls itself %q", s)
	}
}

func absent(t *testing.T, open func(*testing.T) rotator.Store) {
	s, err := open(t).Read(t.Context(), Target())
	if err != nil || s.Keyring != nil || s.Version != 0 {
		t.Errorf("a target without a keyring reads as %+v, %v", s, err)
	}
}

func replace(t *testing.T, open func(*testing.T) rotator.Store) {
	a, b, target := open(t), open(t), Target()
	for version := range int64(3) {
		began := time.Now()
		got, err := a.Write(t.Context(), target, Keyring(target, int(version)), version)
		if err != nil || got != version+1 {
			t.Fatalf("write over version %d: %d, %v", version, got, err)
		}
		s, err := b.Read(t.Context(), target)
		if err != nil || s.Version != version+1 {
			t.Fatalf("read after it: version %d, %v", s.Version, err)
		}
		if want := Keyring(target, int(version)); !s.Keyring.CallbackKey().Equal(want.CallbackKey()) || s.Keyring.CallbackKey().ID() != want.CallbackKey().ID() || !s.Keyring.RotatedAt.Equal(want.RotatedAt) {
			t.Errorf("read %v, wrote %v", s.Keyring, want)
		}
		if s.Written.Before(began.Add(-time.Second)) || s.Written.After(time.Now().Add(time.Second)) {
			t.Errorf("it says it was written at %s, which was at %s", s.Written, began)
		}
	}
}

func conflict(t *testing.T, open func(*testing.T) rotator.Store) {
	a, b, target := open(t), open(t), Target()
	for _, version := range []int64{1, 7} {
		if _, err := a.Write(t.Context(), target, Keyring(target, 1), version); !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("write over version %d of what is not there: %v", version, err)
		}
	}
	if _, err := a.Write(t.Context(), target, Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	_, err := b.Write(t.Context(), target, Keyring(target, 2), 0)
	if !errors.Is(err, rotator.ErrConflict) {
		t.Errorf("a second creation: %v", err)
	}
	Quiet(t, err)
	s, err := a.Read(t.Context(), target)
	if err != nil || s.Keyring.CallbackKey().ID() != "id1" {
		t.Errorf("the loser changed it: %v, %v", s.Keyring, err)
	}
}

// sameContent has somebody else write just what the loser was to write: it is still somebody
// else's write, and the loser must not take it for its own.
func sameContent(t *testing.T, open func(*testing.T) rotator.Store) {
	a, b, target := open(t), open(t), Target()
	for version := range int64(2) {
		if _, err := a.Write(t.Context(), target, Keyring(target, 1), version); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Write(t.Context(), target, Keyring(target, 1), version); !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("a write of what somebody else wrote as version %d: %d, %v", version+1, got, err)
		}
		// An older program copies the members that it does not know, the revision among them.
		s, err := a.Read(t.Context(), target)
		if err != nil || s.Keyring.Revision == "" {
			t.Errorf("version %d has no revision: %v", version+1, err)
		}
	}
}

// race has several writers replace what they read; each version must have one winner.
func race(t *testing.T, open func(*testing.T) rotator.Store) {
	const writers, rounds = 4, 5
	target := Target()
	var mu sync.Mutex
	won := map[int64][]string{}
	var group sync.WaitGroup
	for w := range writers {
		s := open(t)
		group.Go(func() {
			for wins := 0; wins < rounds; {
				read, err := s.Read(t.Context(), target)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				k := Keyring(target, w*1000+wins)
				got, err := s.Write(t.Context(), target, k, read.Version)
				if errors.Is(err, rotator.ErrConflict) {
					continue
				}
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				mu.Lock()
				won[got] = append(won[got], k.CallbackKey().ID())
				mu.Unlock()
				wins++
			}
		})
	}
	group.Wait()
	for version := int64(1); version <= writers*rounds; version++ {
		if len(won[version]) != 1 {
			t.Errorf("version %d was won by %v", version, won[version])
		}
	}
}

func unknown(t *testing.T, open func(*testing.T) rotator.Store) {
	s, target := open(t), Target()
	text := fmt.Sprintf(`{"schema":1,"sdk_app_id":%d,"service":"whiteboard-push","from_the_future":{"a":[1,"b"]},
		"keys":[{"id":"a","value":"%s","state":"current","note":"kept"}]}`, target.SdkAppID, Canary+"x")
	k, err := rotator.DecodeKeyring(target, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), target, k, 0); err != nil {
		t.Fatal(err)
	}
	got, err := s.Read(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := got.Keyring.Encode()
	if err != nil || !strings.Contains(string(encoded), `"from_the_future":{"a":[1,"b"]}`) || !strings.Contains(string(encoded), `"note":"kept"`) {
		t.Errorf("unknown members are lost: %v", err)
	}
}

func others(t *testing.T, open func(*testing.T) rotator.Store) {
	s, a := open(t), Target()
	b := secrets.Target{SdkAppID: a.SdkAppID, Service: secrets.OnlineRecord}
	if _, err := s.Write(t.Context(), a, Keyring(a, 1), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context(), b); err != nil || got.Keyring != nil {
		t.Errorf("another service reads as %v, %v", got, err)
	}
}

func purge(t *testing.T, open func(*testing.T) rotator.Store) {
	s, target := open(t), Target()
	for v := range int64(3) {
		if _, err := s.Write(t.Context(), target, Keyring(target, int(v)), v); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // again is no error
		if err := s.Purge(t.Context(), target, 3); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Read(t.Context(), target)
	if err != nil || got.Version != 3 || got.Keyring.CallbackKey().ID() != "id2" {
		t.Errorf("after the purge it reads as %+v, %v", got, err)
	}
	if _, err := s.Write(t.Context(), target, Keyring(target, 3), 3); err != nil {
		t.Errorf("a write after the purge: %v", err)
	}
}

func cancelled(t *testing.T, open func(*testing.T) rotator.Store) {
	s, target := open(t), Target()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Read(ctx, target)
	_, writeErr := s.Write(ctx, target, Keyring(target, 1), 0)
	if err == nil || writeErr == nil {
		t.Errorf("a cancelled read: %v, a cancelled write: %v", err, writeErr)
	}
	Quiet(t, writeErr)
}

func invalid(t *testing.T, open func(*testing.T) rotator.Store) {
	s, target := open(t), Target()
	k := Keyring(target, 1)
	k.Keys = append(k.Keys, k.Keys[0])
	if _, err := s.Write(t.Context(), target, k, 0); err == nil {
		t.Error("a keyring with a key twice was written")
	} else {
		Quiet(t, err)
	}
}

// Lives runs what a Store must do about a keyring that was deleted, which remove does without a
// trace, and made anew: nothing that was read before is written over the new one.
func Lives(t *testing.T, open func(*testing.T) rotator.Store, remove func(secrets.Target)) {
	s, target := open(t), Target()
	write := func(life string, from, to int64) {
		t.Helper()
		for version := from; version < to; version++ {
			k := Keyring(target, int(version))
			if k.Life = life; life == "" {
				k.Revision = "as it is" // else the Store would give it a life
			}
			if life == "second" {
				at := k.Keys[0].CreatedAt
				k.Keys = append(k.Keys, rotator.Entry{Key: secrets.NewKey("pending", "value-pending"), State: rotator.Pending, CreatedAt: at, PushAfter: at})
				k.Rotation = &rotator.Rotation{ID: "r", Reason: rotator.BySchedule, StartedAt: at}
			}
			if _, err := s.Write(t.Context(), target, k, version); err != nil {
				t.Fatalf("write version %d of life %q: %v", version+1, life, err)
			}
		}
	}
	write("first", 0, 3)
	old, err := s.Read(t.Context(), target)
	if err != nil || old.Keyring.Life != "first" || old.Version != 3 {
		t.Fatalf("%+v, %v", old, err)
	}
	remove(target)
	write("second", 0, 3)
	if _, err := s.Write(t.Context(), target, old.Keyring, old.Version); !errors.Is(err, rotator.ErrAnotherLife) || !errors.Is(err, rotator.ErrConflict) {
		t.Errorf("a write over another life: %v", err)
	}
	now, err := s.Read(t.Context(), target)
	if err != nil || now.Keyring.Life != "second" || now.Keyring.CallbackKey().ID() != "id2" {
		t.Fatalf("after it: %+v, %v", now.Keyring, err)
	}
	// Receivers may have read what was written by mistake: they get their time for the pending key anew.
	if p := now.Keyring.Pending(); (p.Renewed == 1) != (now.Version > 3) {
		t.Errorf("version %d: the pending key was renewed %d times", now.Version, p.Renewed)
	}
	write("second", now.Version, now.Version+1) // it goes on
	remove(target)
	write("", 0, 3) // as an older program makes it
	if _, err := s.Write(t.Context(), target, old.Keyring, old.Version); !errors.Is(err, rotator.ErrAnotherLife) {
		t.Errorf("a write over a keyring of an older program: %v", err)
	}
	now, err = s.Read(t.Context(), target)
	if err != nil || now.Keyring.Life == "first" || now.Keyring.CallbackKey().ID() != "id2" {
		t.Fatalf("after it: %+v, %v", now.Keyring, err)
	}
	remove(target)
	write("", 0, 3)
	now, err = s.Read(t.Context(), target)
	if err != nil || now.Keyring.Life != "" {
		t.Fatalf("%+v, %v", now.Keyring, err)
	}
	first, err := now.Keyring.Revised(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), target, first, now.Version); err != nil {
		t.Errorf("the write that gives it a life: %v", err)
	}
}
