package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/storetest"
)

// stores gives two stores in one directory, with version 1 of the keyring, and the lock's name.
func stores(t *testing.T) (a, b *Store, lock string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := Open(dir)
	if err == nil {
		b, err = Open(dir)
	}
	if err == nil {
		_, err = a.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b, filepath.Join(dir, "77", "whiteboard-push.lock")
}

// inWrite has s call do once, while it holds the locks of what it writes.
func inWrite(s *Store, do func()) {
	s.sync = func(f *os.File) error {
		s.sync = (*os.File).Sync
		do()
		return f.Sync()
	}
}

// blocked is for a write that waits for a lock.
func blocked(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*lockPoll)
	t.Cleanup(cancel)
	return ctx
}

// oldWrite is a write of a program that knows the lock on the file alone.
func oldWrite(s *Store, lock string, k *rotator.Keyring) error {
	l := flock.New(lock, flock.SetPermissions(0o600))
	if ok, err := l.TryLock(); err != nil || !ok {
		return fmt.Errorf("locked: %t, %w", ok, err)
	}
	defer func() { _ = l.Unlock() }()
	e, err := s.load(childTarget)
	if err != nil {
		return err
	}
	data, err := k.Encode()
	if err != nil {
		return err
	}
	content := fmt.Sprintf(`{"version":%d,"written_at":%q,"keyring":%s}`, e.Version+1, time.Now().Format(time.RFC3339), data)
	if err := os.WriteFile(lock+".old", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(lock+".old", s.path(childTarget))
}

// TestLockFileDeleted: somebody deletes the lock's file while a process writes, and another one comes.
// One of the two writes is refused, and the other is there.
func TestLockFileDeleted(t *testing.T) {
	t.Parallel()
	mine, theirs := storetest.Keyring(childTarget, 2), storetest.Keyring(childTarget, 3)
	for name, r := range map[string]struct {
		meanwhile func(t *testing.T, b *Store, lock string) error
		version   int64
		wins      *rotator.Keyring // nil: nobody yet
	}{
		"nobody else comes": {func(*testing.T, *Store, string) error { return nil }, 1, nil},
		"this program": {func(t *testing.T, b *Store, _ string) error {
			if _, err := b.Write(blocked(t), childTarget, theirs, 1); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("it does not wait: %w", err)
			}
			return nil
		}, 1, nil},
		"an older program": {func(_ *testing.T, b *Store, lock string) error { return oldWrite(b, lock, theirs) }, 2, theirs},
		"the directory is gone, too": {func(t *testing.T, b *Store, lock string) error {
			if err := os.RemoveAll(filepath.Dir(lock)); err != nil {
				return err
			}
			_, err := b.Write(t.Context(), childTarget, theirs, 0)
			return err
		}, 1, theirs},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, lock := stores(t)
			inWrite(a, func() {
				if err := os.Remove(lock); err != nil {
					t.Error(err)
				}
				if err := r.meanwhile(t, b, lock); err != nil {
					t.Error(err)
				}
			})
			if v, err := a.Write(t.Context(), childTarget, mine, 1); !errors.Is(err, rotator.ErrConflict) || !strings.Contains(err.Error(), "was deleted") {
				t.Errorf("version %d, %v", v, err)
			}
			s, err := a.Read(t.Context(), childTarget)
			if err != nil || s.Version != r.version || (r.wins != nil && !s.Keyring.CallbackKey().Equal(r.wins.CallbackKey())) || s.Keyring.CallbackKey().Equal(mine.CallbackKey()) {
				t.Fatalf("version %d with %v, %v", s.Version, s.Keyring, err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(lock), "*.tmp")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := a.Write(t.Context(), childTarget, mine, s.Version); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// TestOlderProgramBeside: this program and one that knows the lock on the file alone wait for each other.
func TestOlderProgramBeside(t *testing.T) {
	t.Parallel()
	a, b, lock := stores(t)
	l := flock.New(lock)
	if ok, err := l.TryLock(); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, err := a.Write(blocked(t), childTarget, storetest.Keyring(childTarget, 2), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while an older program writes: %v", err)
	}
	_ = l.Unlock()
	inWrite(a, func() {
		if err := oldWrite(b, lock, storetest.Keyring(childTarget, 3)); err == nil || !strings.Contains(err.Error(), "locked: false") {
			t.Errorf("an older program, while this one writes: %v", err)
		}
	})
	if v, err := a.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 2), 1); v != 2 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
}
