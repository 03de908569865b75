package tiwtest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

var watchedTarget = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

// scripted is a store whose answers a test sets.
type scripted struct {
	rotator.Store

	mu    sync.Mutex
	snap  rotator.Snapshot
	err   error
	takes time.Duration
}

// answer has the reads that begin from now on fail, and take some time.
func (s *scripted) answer(err error, takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.takes = err, takes
}

func (s *scripted) Read(ctx context.Context, _ secrets.Target) (rotator.Snapshot, error) {
	s.mu.Lock()
	snap, err, takes := s.snap, s.err, s.takes // as it was when the read was begun
	s.mu.Unlock()
	select {
	case <-time.After(takes):
		return snap, err
	case <-ctx.Done():
		return rotator.Snapshot{}, ctx.Err()
	}
}

// write makes another version, with these keys accepted; the first is the current one.
func (s *scripted) write(keys ...string) {
	k := &rotator.Keyring{Target: watchedTarget}
	for i, key := range keys {
		e := rotator.Entry{Key: secrets.NewKey("id-"+key, key), State: rotator.Previous, CreatedAt: time.Now(), AcceptUntil: time.Now().Add(time.Hour)}
		if i == 0 {
			e.State = rotator.Current
		}
		k.Keys = append(k.Keys, e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snap = rotator.Snapshot{Keyring: k, Version: s.snap.Version + 1, Written: time.Now()}
}

// TestReceiver: its verdict rests on when things happened, not on when it got to see them.
func TestReceiver(t *testing.T) {
	t.Parallel()
	const lag, poll = 10 * time.Second, 25 * time.Millisecond
	for _, c := range []struct {
		name string
		play func(s *scripted)
		key  string
		age  time.Duration // of the callback, when it arrives
		want int
	}{
		{"a key that is known", func(*scripted) {}, "a", 0, 200},
		{"one that is not", func(*scripted) {}, "b", 0, 401},
		{"a new key before the lag has passed", func(s *scripted) { s.write("a", "b"); time.Sleep(lag - 2*poll) }, "b", 0, 401},
		{"and after it", func(s *scripted) { s.write("a", "b"); time.Sleep(lag + 2*poll) }, "b", 0, 200},
		{"a read that takes long is no outage", func(s *scripted) {
			s.answer(nil, 4*time.Second)
			time.Sleep(poll)
			s.write("a", "b")
			time.Sleep(lag)
			s.answer(nil, 0)
			time.Sleep(5 * time.Second)
		}, "b", 0, 200},
		{"who could not read the new key is late from then on", func(s *scripted) {
			s.answer(errors.New("sealed"), 0)
			time.Sleep(time.Minute)
			s.write("a", "b")
			time.Sleep(time.Minute)
			s.answer(nil, 0)
			time.Sleep(lag / 2)
		}, "b", 0, 401},
		{"for no longer than the lag", func(s *scripted) {
			s.answer(errors.New("sealed"), 0)
			s.write("a", "b")
			time.Sleep(time.Minute)
			s.answer(nil, 0)
			time.Sleep(lag + 2*poll)
		}, "b", 0, 200},
		{"what time there was before it went away counts", func(s *scripted) {
			s.answer(nil, 4*time.Second)
			time.Sleep(2 * poll)
			s.write("a", "b") // after the read under way was begun
			s.answer(errors.New("sealed"), 4*time.Second)
			time.Sleep(8*time.Second - poll) // one read did not see it yet, the next one fails
			s.answer(nil, 0)
			time.Sleep(lag - 8*time.Second + 4*time.Second) // later than the lag by what it was away
		}, "b", 0, 200},
		{"a store that does not answer at all is away", func(s *scripted) {
			s.answer(nil, time.Hour)
			time.Sleep(time.Minute)
			s.write("a", "b")
			time.Sleep(time.Minute)
			s.answer(nil, 0)
			time.Sleep(lag / 4)
		}, "b", 0, 401},
		{"a retired key, signed just now", func(s *scripted) { s.write("b"); time.Sleep(time.Minute) }, "a", 0, 401},
		{"a callback that was on its way while its key was retired", func(s *scripted) { s.write("b"); time.Sleep(time.Minute) }, "a", time.Minute + time.Second, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s, r := &scripted{}, NewReceiver(lag, poll)
				s.write("a")
				go r.Watch(ctx, s, watchedTarget)
				time.Sleep(time.Minute)
				c.play(s)
				signed := time.Now().Add(-c.age)
				body := Callback(watchedTarget.SdkAppID, "WhiteboardPushStarted", 1, c.key, signed.Add(callbackLife))
				req := httptest.NewRequest(http.MethodPost, "/whiteboard-push", bytes.NewReader(body)).WithContext(ctx)
				req.Header.Set(signedAt, signed.Format(time.RFC3339Nano))
				got := httptest.NewRecorder()
				r.ServeHTTP(got, req)
				if got.Code != c.want {
					t.Errorf("%d, want %d: %s", got.Code, c.want, got.Body)
				}
			})
		})
	}
}
