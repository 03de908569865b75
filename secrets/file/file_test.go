package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
)

// The test program is also the other process of some tests.
var children = map[string]func() int{"increment": increment, "limited": limited}

func TestMain(m *testing.M) {
	if play := children[os.Getenv("FILE_TEST_CHILD")]; play != nil {
		os.Exit(play())
	}
	os.Exit(m.Run())
}

var childTarget = secrets.Target{SdkAppID: 77, Service: secrets.WhiteboardPush}

func TestConformance(t *testing.T) {
	t.Parallel()
	dirs := map[string]string{}
	storetest.Run(t, func(t *testing.T) rotator.Store {
		name := strings.Split(t.Name(), "/")[1]
		if dirs[name] == "" {
			dirs[name] = filepath.Join(t.TempDir(), "keys")
		}
		s, err := Open(dirs[name])
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestLives(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Lives(t, func(*testing.T) rotator.Store { return s }, func(target secrets.Target) {
		if err := os.RemoveAll(filepath.Dir(s.path(target))); err != nil {
			t.Fatal(err)
		}
	})
}

func child(t *testing.T, mode, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), "FILE_TEST_CHILD="+mode, "FILE_TEST_DIR="+dir)
	c.Stderr = os.Stderr
	return c
}

const increments = 50

// increment replaces the keyring a number of times, and prints each version that it won.
func increment() int {
	s, err := Open(os.Getenv("FILE_TEST_DIR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for won := 0; won < increments; {
		read, err := s.Read(context.Background(), childTarget)
		if err == nil {
			var v int64
			v, err = s.Write(context.Background(), childTarget, storetest.Keyring(childTarget, os.Getpid()), read.Version)
			if err == nil {
				fmt.Println(v)
				won++
			}
		}
		if err != nil && !errors.Is(err, rotator.ErrConflict) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

func TestProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	takeTurns(t, filepath.Join(t.TempDir(), "keys"))
}

// TestProcessesBesideACleaner deletes the lock's file again and again under processes that write.
func TestProcessesBesideACleaner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	var cleaner sync.WaitGroup
	done := make(chan struct{})
	cleaner.Go(func() {
		for deleted := 0; deleted < increments; {
			select {
			case <-done:
				if deleted == 0 {
					t.Error("the file was never deleted")
				}
				return
			default:
				if os.Remove(filepath.Join(dir, "77", "whiteboard-push.lock")) == nil {
					deleted++
				}
			}
		}
	})
	takeTurns(t, dir)
	close(done)
	cleaner.Wait()
}

// takeTurns has three processes write in one directory: each version is won once.
func takeTurns(t *testing.T, dir string) {
	t.Helper()
	var outs []*strings.Builder
	var cs []*exec.Cmd
	for range 3 {
		c, out := child(t, "increment", dir), &strings.Builder{}
		c.Stdout = out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cs, outs = append(cs, c), append(outs, out)
	}
	won := map[int]int{}
	for i, c := range cs {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(outs[i].String()) {
			v, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			won[v]++
		}
	}
	for v := 1; v <= 3*increments; v++ {
		if won[v] != 1 {
			t.Errorf("version %d was won %d times", v, won[v])
		}
	}
}

// TestKilledWhileWriting kills a process that does nothing but replace the file; whatever
// it left, the store goes on from a whole version.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	for round := range 5 {
		dir := filepath.Join(t.TempDir(), "keys")
		c := child(t, "increment", dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		last := 0
		lines := bufio.NewScanner(out)
		for i := 0; i <= round*7 && lines.Scan(); i++ {
			last, _ = strconv.Atoi(lines.Text())
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		// What a crash between the writing and the renaming leaves:
		app := filepath.Join(dir, "77")
		if err := os.WriteFile(filepath.Join(app, "whiteboard-push.json.tmp"), []byte("{half"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		read, err := s.Read(t.Context(), childTarget)
		if err != nil || read.Version < int64(last) {
			t.Fatalf("after the kill: version %d (at least %d was acknowledged), %v", read.Version, last, err)
		}
		if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), read.Version); err != nil {
			t.Fatal(err)
		}
		if entries, _ := filepath.Glob(filepath.Join(app, "*.tmp")); len(entries) > 0 {
			t.Errorf("left behind: %v", entries)
		}
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0)
	_, err = s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "77"): 0o700,
		filepath.Join(dir, "77", "whiteboard-push.json"): 0o600, filepath.Join(dir, "77", "whiteboard-push.lock"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestRefusesWhatOthersCanReach(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := filepath.Join(base, "open")
	must(os.Mkdir(open, 0o700))
	must(os.Chmod(open, 0o750))
	link := filepath.Join(base, "link")
	must(os.Symlink(base, link))
	for name, to := range map[string]string{"to-nowhere": "none", "to-itself": "to-itself", "to-a-file": "plain", "to-a-link": "link"} {
		must(os.Symlink(to, filepath.Join(base, name)))
	}
	plain := filepath.Join(base, "plain")
	must(os.WriteFile(plain, nil, 0o600))
	for path, want := range map[string]string{open: "chmod go=", link: "chmod go= " + base, filepath.Join(base, "to-a-link"): "chmod go= " + base, filepath.Join(base, "to-nowhere"): "make the directory",
		filepath.Join(base, "to-itself"): "make the directory", filepath.Join(base, "to-a-file"): "not a directory", plain: "not a directory", "relative": "absolute"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	must(os.Chmod(base, 0o755))
	dir := filepath.Join(base, "keys")
	s, err := Open(dir)
	must(err)
	_, err = s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0)
	must(err)
	file := filepath.Join(dir, "77", "whiteboard-push.json")
	must(os.Chmod(file, 0o644))
	if _, err := s.Read(t.Context(), childTarget); err == nil || !strings.Contains(err.Error(), "chmod go=") {
		t.Errorf("a file that others can read: %v", err)
	}
	must(os.Chmod(file, 0o600))
	must(os.WriteFile(file, []byte(`{"version":1,"keyring":"`+storetest.Canary), 0o600))
	_, err = s.Read(t.Context(), childTarget)
	if err == nil || !strings.Contains(err.Error(), "backup") {
		t.Errorf("a file that is cut off: %v", err)
	}
	storetest.Quiet(t, err)
}

// TestLinkToPrivate: the store's directory may be a link to a private one, as systemd makes it with DynamicUser=; both
// names are of one store, with the same locks. What is in it may be no link.
func TestLinkToPrivate(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	inner, link := filepath.Join(base, "private", "tiwkeyd"), filepath.Join(base, "tiwkeyd")
	if err := errors.Join(os.MkdirAll(inner, 0o700), os.Symlink("private/tiwkeyd", link)); err != nil {
		t.Fatal(err)
	}
	linked, err := Open(link)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := Open(inner)
	if err != nil {
		t.Fatal(err)
	}
	if place, err := linked.Inspect(); err != nil || !place.Exists {
		t.Errorf("%+v, %v", place, err)
	}
	first, err := linked.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := direct.Read(t.Context(), childTarget); err != nil || got.Version != first {
		t.Errorf("by the other name: %+v, %v", got, err)
	}
	held, err := linked.lock(t.Context(), childTarget)
	if err != nil {
		t.Fatal(err)
	}
	brief, stop := context.WithTimeout(t.Context(), 10*lockPoll)
	defer stop()
	if _, err := direct.Write(brief, childTarget, storetest.Keyring(childTarget, 2), first); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("both names hold the lock: %v", err)
	}
	held.unlock()
	if all, _, err := linked.Targets(t.Context(), nil); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	// The directory is opened to others: it is refused, and taken again once it is private.
	for mode, good := range map[os.FileMode]bool{0o755: false, 0o700: true, 0o710: false} {
		if err := os.Chmod(inner, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(link); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "chmod go= "+inner) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(base, "theirs")
		if err := errors.Join(os.Chmod(inner, 0o700), os.Symlink(inner, theirs), os.Lchown(theirs, 12345, -1)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(theirs); err == nil || !strings.Contains(err.Error(), "is a link of user 12345") {
			t.Errorf("somebody else's link: %v", err)
		}
	}
	if err := errors.Join(os.Chmod(inner, 0o700), os.Rename(filepath.Join(inner, "77"), filepath.Join(base, "77")), os.Symlink(filepath.Join(base, "77"), filepath.Join(inner, "77"))); err != nil {
		t.Fatal(err)
	}
	if _, err := linked.Read(t.Context(), childTarget); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("a link in the store: %v", err)
	}
}

// limited writes under a limit on the size of files, which stands for a full disk: the
// kernel fails the write in its middle, on every machine alike.
func limited() int {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(os.Getenv("FILE_TEST_DIR"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100, Max: unix.RLIM_INFINITY}); err != nil {
		fmt.Println(err)
		return 1
	}
	_, err = s.Write(context.Background(), childTarget, storetest.Keyring(childTarget, 2), 1)
	fmt.Println("first:", err)
	left, _ := filepath.Glob(filepath.Join(os.Getenv("FILE_TEST_DIR"), "77", "*.tmp"))
	fmt.Println("left behind:", len(left))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		fmt.Println(err)
		return 1
	}
	read, err := s.Read(context.Background(), childTarget)
	fmt.Println("read:", read.Keyring.CallbackKey(), err)
	_, err = s.Write(context.Background(), childTarget, storetest.Keyring(childTarget, 3), 1)
	fmt.Println("second:", err)
	return 0
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0); err != nil {
		t.Fatal(err)
	}
	out, err := child(t, "limited", dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"first: replace", "stays as it was", "raise the file size limit", "left behind: 0", "read: id1 <nil>", "second: <nil>"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), storetest.Canary) {
		t.Error("the output shows a key")
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, err := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EACCES, syscall.EPERM} {
		wrapped := advise(&os.PathError{Op: "write", Path: "/x", Err: err})
		if !errors.Is(wrapped, err) || strings.Count(wrapped.Error(), ":") < 2 {
			t.Errorf("%v: %v has no advice", err, wrapped)
		}
	}
}

// TestWrittenIsWhenItBecameReadable has a write whose own time is long past when the file
// takes its name, as on a slow disk.
func TestWrittenIsWhenItBecameReadable(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return time.Unix(1, 0) }
	if _, err := s.Write(t.Context(), childTarget, storetest.Keyring(childTarget, 1), 0); err != nil {
		t.Fatal(err)
	}
	read, err := s.Read(t.Context(), childTarget)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.path(childTarget))
	if err != nil || read.Written.Before(info.ModTime()) {
		t.Errorf("written at %s, before its content at %s, %v", read.Written, info.ModTime(), err)
	}
}
