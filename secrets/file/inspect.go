package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// At gives the store in dir as Open does, but makes nothing and refuses nothing: for those
// who only look.
func At(dir string) *Store {
	return &Store{dir: filepath.Clean(dir), now: time.Now, sync: (*os.File).Sync}
}

// Place is what the store's directory is like.
type Place struct {
	Exists bool
	Inside string // the directory, or the nearest one above it that exists
	Free   uint64 // bytes that this user may still write there
}

// Inspect looks at the store's directory, and reports what makes it no place for keyrings. It
// writes nothing: whether the directory could be made or written is asked of the system.
func (s *Store) Inspect() (Place, error) {
	p := Place{Inside: s.dir}
	for {
		info, err := os.Stat(p.Inside)
		if err == nil && !info.IsDir() {
			return p, fmt.Errorf("file store: %s is not a directory", p.Inside)
		}
		if err == nil {
			break
		}
		if (!errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)) || p.Inside == filepath.Dir(p.Inside) {
			return p, fmt.Errorf("file store: look at %s: %w", s.dir, advise(err))
		}
		p.Inside = filepath.Dir(p.Inside)
	}
	if p.Exists = p.Inside == s.dir; p.Exists {
		if err := s.private(); err != nil {
			return p, fmt.Errorf("file store: %w", err)
		}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, p.Inside, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return p, fmt.Errorf("file store: write in %s: %w", p.Inside, advise(err))
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(p.Inside, &disk); err != nil {
		return p, fmt.Errorf("file store: ask for the free space of %s: %w", p.Inside, advise(err))
	}
	p.Free = uint64(max(disk.Bavail, 0)) * uint64(disk.Bsize) //nolint:unconvert // it is signed on some systems
	return p, nil
}
