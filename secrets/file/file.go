// Package file keeps keyrings in files: the store for one machine, and for the demo. Each
// target has a file of its own, readable by the owner alone, which is replaced as a whole.
// Check-and-set holds between processes, by locks on its directory and on a file beside it.
package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Store is a rotator.Store in a directory.
type Store struct {
	dir  string
	now  func() time.Time
	sync func(*os.File) error // (*os.File).Sync
}

// envelope is the content of a file.
type envelope struct {
	Version   int64           `json:"version"`
	WrittenAt time.Time       `json:"written_at"`
	Keyring   json.RawMessage `json:"keyring"`

	visible time.Time // when the file took its name
}

// lockPoll is how often a lock held by another process is tried again.
const lockPoll = 10 * time.Millisecond

// Open gives the store in dir, an absolute path, and makes the directory if it is not there.
// A directory that others can get into is refused; a link to one that is private is as good, as systemd makes one of
// its StateDirectory= with DynamicUser=.
func Open(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("file store: %q is not an absolute path", dir)
	}
	s := &Store{dir: filepath.Clean(dir), now: time.Now, sync: (*os.File).Sync}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("file store: make the directory: %w", advise(err))
	}
	if err := s.private(); err != nil {
		return nil, fmt.Errorf("file store: %w", err)
	}
	return s, nil
}

// String names the store.
func (s *Store) String() string { return "file://" + s.dir }

func (s *Store) path(t secrets.Target) string {
	return filepath.Join(s.dir, strconv.FormatInt(t.SdkAppID, 10), string(t.Service)+".json")
}

// Read gives what the target's file holds.
func (s *Store) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return rotator.Snapshot{}, err
	}
	e, err := s.load(t)
	if err != nil || e.Keyring == nil {
		return rotator.Snapshot{Version: e.Version}, err
	}
	k, err := rotator.DecodeKeyring(t, e.Keyring)
	if err != nil {
		return rotator.Snapshot{}, fmt.Errorf("file %s: %w", s.path(t), err)
	}
	return rotator.Snapshot{Keyring: k, Version: e.Version, Written: e.visible}, nil
}

func (s *Store) load(t secrets.Target) (envelope, error) {
	var e envelope
	path := s.path(t)
	for _, p := range []string{filepath.Dir(path), path} {
		err := private(p, p != path)
		if errors.Is(err, os.ErrNotExist) {
			return e, nil
		}
		if err != nil {
			return e, err
		}
	}
	data, changed, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, advise(err)
	}
	if json.Unmarshal(data, &e) != nil || e.Version <= 0 {
		return envelope{}, fmt.Errorf("file %s is not one of this store; put it back from a backup, or move it away to begin anew", path)
	}
	// written_at is from before the file was on disk, which can take long; renaming it, which
	// made it readable, changed its inode. A later change errs to the safe side.
	e.visible = e.WrittenAt
	if changed.After(e.visible) {
		e.visible = changed
	}
	return e, nil
}

// maxFile is the largest file that is read. A keyring with as many keys as there may be has a quarter.
const maxFile = 1 << 20

// readFile gives a file's content, and when the same file's inode was last changed.
func readFile(path string) (content []byte, changed time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	var inode unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &inode); err != nil {
		return nil, time.Time{}, fmt.Errorf("look at %s: %w", path, err)
	}
	if content, err = io.ReadAll(io.LimitReader(f, maxFile+1)); len(content) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes, and holds no keyring: put it back from a backup, or move it away to begin anew", path, maxFile)
	}
	return content, time.Unix(inode.Ctim.Unix()).UTC(), err
}

// Write replaces the target's file if its version is the one given.
func (s *Store) Write(ctx context.Context, t secrets.Target, k *rotator.Keyring, version int64) (int64, error) {
	named, err := k.Named()
	if err != nil {
		return 0, err
	}
	data, err := named.Encode()
	if err != nil {
		return 0, err
	}
	dir := filepath.Dir(s.path(t))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("make the directory: %w", advise(err))
	}
	if err := private(dir, true); err != nil {
		return 0, err
	}
	lock, err := s.lock(ctx, t)
	if err != nil {
		return 0, err
	}
	defer lock.unlock()
	e, err := s.load(t)
	if err != nil {
		return 0, err
	}
	if e.Version != version {
		return 0, fmt.Errorf("%w (version %d is there, %d was read)", rotator.ErrConflict, e.Version, version)
	}
	if e.Keyring != nil {
		if was, err := rotator.DecodeKeyring(t, e.Keyring); err == nil && !k.Continues(was) {
			return 0, rotator.ErrAnotherLife
		}
	}
	next := envelope{Version: version + 1, WrittenAt: s.now().UTC(), Keyring: data}
	content, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return 0, fmt.Errorf("encode the file: %w", err)
	}
	if err := s.replace(s.path(t), append(content, '\n'), lock); err != nil {
		return 0, fmt.Errorf("replace %s, which stays as it was: %w", s.path(t), advise(err))
	}
	for _, d := range []string{dir, s.dir} {
		if err := s.syncDir(d); err != nil {
			return 0, fmt.Errorf("%s was replaced, but may be the old one again after a power failure: sync the directory: %w", s.path(t), advise(err))
		}
	}
	return next.Version, nil
}

// Purge does nothing: a replaced file leaves no older version.
func (s *Store) Purge(context.Context, secrets.Target, int64) error { return nil }

// held are locks that end with the process that holds them.
type held []*flock.Flock

// lock takes the target's locks. The one on the directory excludes every process: nobody deletes
// that without the keyring. The one on the file is what older programs take, and they take no other.
func (s *Store) lock(ctx context.Context, t secrets.Target) (held, error) {
	path := s.path(t)
	h := held{flock.New(strings.TrimSuffix(path, ".json")+".lock", flock.SetPermissions(0o600)),
		flock.New(filepath.Dir(path), flock.SetFlag(os.O_RDONLY|syscall.O_DIRECTORY))}
	for _, l := range h {
		if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
			h.unlock()
			return nil, fmt.Errorf("lock %s: %w", l.Path(), advise(err))
		}
	}
	return h, nil
}

func (h held) unlock() {
	for _, l := range h {
		_ = l.Unlock()
	}
}

// still reports whether the locks are of what has their names now. If somebody deleted one of them,
// another process may hold the one that was made in its place.
func (h held) still() error {
	for _, l := range h {
		locked, err := l.Stat()
		if err != nil {
			return err
		}
		if named, err := os.Lstat(l.Path()); err != nil || !os.SameFile(locked, named) {
			return fmt.Errorf("%w (%s, which is the lock, was deleted meanwhile)", rotator.ErrConflict, l.Path())
		}
	}
	return nil
}

// replace puts content in place of the file, or leaves the file as it is: the new file is on
// disk before it takes the old one's name. The name itself is not on disk yet. The temporary
// file has one name, so that a crash leaves at most one behind; the locks are held.
func (s *Store) replace(path string, content []byte, lock held) (err error) {
	tmp := path + ".tmp"
	_ = os.Remove(tmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = s.sync(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = lock.still()
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return s.sync(d)
}

// private is the rule for the store's own directory, whose name may be a link of ours or of root's.
func (s *Store) private() error {
	link, err := os.Lstat(s.dir)
	if err != nil {
		return advise(err)
	}
	if owner := int(link.Sys().(*syscall.Stat_t).Uid); link.Mode()&os.ModeSymlink != 0 && owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s is a link of user %d, neither of root nor of the one this runs as (%d)", s.dir, owner, os.Geteuid())
	}
	dir, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		return advise(err)
	}
	return private(dir, true)
}

// private refuses what others than the owner can read, what belongs to somebody else, and
// links, which could lead anywhere.
func private(path string, dir bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return advise(err)
	}
	what := "file"
	if dir {
		what = "directory"
	}
	switch owner := info.Sys().(*syscall.Stat_t).Uid; {
	case dir != info.IsDir() || (!dir && !info.Mode().IsRegular()):
		return fmt.Errorf("%s is not a %s", path, what)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s %s can be read by others (mode %04o): chmod go= %s", what, path, info.Mode().Perm(), path)
	case int(owner) != os.Geteuid():
		return fmt.Errorf("%s %s belongs to user %d, not to the one this runs as (%d)", what, path, owner, os.Geteuid())
	}
	return nil
}

// advise adds to an error of the operating system what can be done.
func advise(err error) error {
	for _, a := range []struct {
		is   error
		what string
	}{
		{syscall.ENOSPC, "free some space; it is tried again"},
		{syscall.EDQUOT, "free some space or raise the quota; it is tried again"},
		{syscall.EROFS, "make the file system writable; it is tried again"},
		{syscall.EFBIG, "raise the file size limit; it is tried again"},
		{os.ErrPermission, "give the directory to the user this runs as"},
	} {
		if errors.Is(err, a.is) {
			return fmt.Errorf("%w: %s", err, a.what)
		}
	}
	return err
}
