// Package private reads files that hold a secret, by one rule for all of them: such a file belongs to root or to the
// user this runs as, and nobody else writes or reads it. Kubernetes, Docker and systemd hand secrets out in memory or
// on mounts that cannot be written to, as files of root's whose modes are theirs to choose: that others can read one
// of these is a warning.
package private

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"tiwkeyd/internal/bounded"
)

// patience is how long whoever holds a pipe's other end may take: a person may have to confirm something.
var patience = time.Minute

// File is a file that was read.
type File struct {
	Content []byte // without a byte order mark

	path, seen string // seen says how others can read it; "" if they cannot
	handedOut  bool
}

// ReadFile gives the content of a file of at most so many bytes that holds a secret.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := Read(path, most)
	if err == nil {
		err = f.Secret()
	}
	if err != nil {
		return nil, err
	}
	return f.Content, nil
}

// Read reads a file that may hold a secret: whoever finds one in it asks Secret.
func Read(path string, most int64) (File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe with nobody at its other end is not waited for
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if info.Mode().Type()&^fs.ModeNamedPipe != 0 {
		return File{}, fmt.Errorf("%s is not a file", path)
	}
	got := File{path: path}
	mode, owner := info.Mode().Perm(), int(info.Sys().(*syscall.Stat_t).Uid)
	switch us := os.Geteuid(); {
	case owner != 0 && owner != us:
		return File{}, fmt.Errorf("%s belongs to user %d (mode %04o), neither to root nor to the one this runs as: run this as that user, or chown %d %s", path, owner, mode, us, path)
	case mode&0o022 != 0:
		return File{}, fmt.Errorf("%s can be written by others (mode %04o, of user %d): chmod go-w %s", path, mode, owner, path)
	case mode&0o044 != 0:
		got.seen = fmt.Sprintf("%s can be read by others (mode %04o, of user %d)", path, mode, owner)
		got.handedOut = owner == 0 && info.Mode().IsRegular() && handedOut(f)
	}
	_ = f.SetReadDeadline(time.Now().Add(patience)) // a file has none
	got.Content, err = bounded.Text(f, path, most)
	if err == nil && len(got.Content) == 0 && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is a pipe that nobody writes to, or that was read before", path)
	}
	return got, err
}

// told has the files that were warned of.
var told sync.Map

// Secret says that there is a secret in the file: an error if others can read it, and a warning in slog's default log,
// once for each file, if the file was handed out so.
func (f File) Secret() error {
	switch {
	case f.seen == "":
		return nil
	case !f.handedOut:
		return fmt.Errorf("%s: chmod go= %s", f.seen, f.path)
	}
	if _, again := told.LoadOrStore(f.seen, true); !again {
		slog.Default().Warn("a file with a secret can be read by others; it was handed out so, and is used", "file", f.seen)
	}
	return nil
}
