package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/storetest"
)

// TestRefusesOnRead has what is on the disk changed under an open store.
func TestRefusesOnRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(dir, file string) error
		want  string
	}{
		"directory that others can read": {func(dir, _ string) error { return os.Chmod(dir, 0o755) }, "chmod go="},
		"file that others can write":     {func(_, file string) error { return os.Chmod(file, 0o620) }, "chmod go="},
		"a pipe":                         {func(_, file string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) }, "is not a file"},
		"a link":                         {func(_, file string) error { return errors.Join(os.Rename(file, file+"2"), os.Symlink(file+"2", file)) }, "is not a file"},
		"empty object":                   {func(_, file string) error { return os.WriteFile(file, []byte("{}"), 0o600) }, "backup"},
		"no version": {func(_, file string) error {
			return os.WriteFile(file, []byte(`{"version":0,"keyring":{"schema":1}}`), 0o600)
		}, "backup"},
		"no keyring of this program": {func(_, file string) error {
			return os.WriteFile(file, []byte(`{"version":1,"keyring":{"schema":2}}`), 0o600)
		}, "upgrade"},
		"somebody else's": {func(_, file string) error {
			if os.Geteuid() != 0 {
				return errSkip
			}
			return os.Chown(file, 12345, -1)
		}, "belongs to user 12345"},
	} {
		s, err := Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(filepath.Dir(s.path(childTarget)), s.path(childTarget)); err != nil {
			if errors.Is(err, errSkip) {
				continue
			}
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			read, err := s.Read(context.Background(), childTarget)
			if err == nil || !strings.Contains(err.Error(), c.want) || read.Keyring != nil {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			if _, err := s.Write(context.Background(), childTarget, storetest.Keyring(childTarget, 2), 0); err == nil || errors.Is(err, rotator.ErrConflict) && c.want != "upgrade" {
				t.Errorf("%s: written over: %v", name, err)
			}
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: it hangs", name)
		}
	}
}

// TestOnDiskBeforeItCounts has the file be on the disk before it takes its name, and the name
// before the write is told: or after a power failure Tencent could sign with a key that the
// keyring does not have.
func TestOnDiskBeforeItCounts(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	var synced []string
	fails := ""
	s.sync = func(f *os.File) error {
		name := filepath.Base(f.Name())
		synced = append(synced, name)
		if name == fails {
			return syscall.EIO
		}
		return f.Sync()
	}
	if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0); err != nil {
		t.Fatal(err)
	}
	want := []string{"whiteboard-push.json.tmp", "77", "keys"}
	if !slices.Equal(synced, want) {
		t.Errorf("%v was synced, want %v", synced, want)
	}
	for i, name := range want {
		fails = name
		read, err := s.Read(t.Context(), childTarget)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 2+i), read.Version)
		if !errors.Is(err, syscall.EIO) || errors.Is(err, rotator.ErrConflict) {
			t.Errorf("%s cannot be synced: %v", name, err)
		}
	}
}

var errSkip = errors.New("only root can")

// TestWrittenIsTheLater of the writer's time and the inode's change; the content's time, which
// a restore or a slow disk makes older, does not count.
func TestWrittenIsTheLater(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Second)
	for name, now := range map[string]time.Time{"long ago": time.Unix(1, 0), "a clock ahead": began.Add(time.Hour)} {
		s, err := Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		s.now = func() time.Time { return now }
		if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(s.path(childTarget), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		read, err := s.Read(t.Context(), childTarget)
		if err != nil || read.Written.Before(began) || read.Written.Before(now) {
			t.Errorf("%s: written at %s, %v", name, read.Written, err)
		}
	}
}
