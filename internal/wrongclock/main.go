// Command wrongclock makes an overlay for the go command, and prints its path: programs built
// with `go build -overlay` of it have a wall clock that can be set wrong while they run. It is
// the standard library's own, so everything in the program has it; the monotonic clock is left
// alone, as it is when a machine's clock is set. Tests use it.
//
// The file that TEST_CLOCK_STEP names holds how far off the clock is: nanoseconds, as 64 bits in
// the machine's own order, to be written in place. Where none is named, the clock is right.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reading is where time.Now takes the clock's time, in time.go of the standard library.
const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

// step is added to the package time. It maps the file, because timers take the time where no
// system call is allowed.
const step = `package time

import (
	"syscall"
	"unsafe"
)

var stepBy = mapStep()

func mapStep() *int64 {
	name, ok := syscall.Getenv("TEST_CLOCK_STEP")
	if !ok {
		return new(int64)
	}
	fd, err := open(name)
	if err != nil {
		panic("TEST_CLOCK_STEP: " + err.Error())
	}
	defer closefd(fd)
	at, _, errno := syscall.Syscall6(syscall.SYS_MMAP, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED, fd, 0)
	if errno != 0 {
		panic("TEST_CLOCK_STEP: " + errno.Error())
	}
	return *(**int64)(unsafe.Pointer(&at))
}

// step gives the time as a clock that was set wrong tells it.
func step(sec int64, nsec int32) (int64, int32) {
	if stepBy == nil { // it is asked for before it is there
		return sec, nsec
	}
	by := *stepBy + int64(nsec)
	sec, by = sec+by/1e9, by%1e9
	if by < 0 {
		sec, by = sec-1, by+1e9
	}
	return sec, int32(by)
}
`

func main() {
	path, err := overlay()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wrongclock: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// overlay writes the files and gives the path of the one that lists them.
func overlay() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("ask the go command for GOROOT: %w", err)
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	source := filepath.Join(root, "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", fmt.Errorf("read the standard library: %w", err)
	}
	if strings.Count(string(text), reading) != 1 {
		return "", fmt.Errorf("%s of %s does not have %q once: this program has to be told how it reads the clock", source, version, reading)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	dir := filepath.Join(cache, "tiwkeyd", "wrongclock-"+version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replaced := map[string]string{}
	for name, content := range map[string]string{
		"time.go": strings.Replace(string(text), reading, reading+"\tsec, nsec = step(sec, nsec)\n", 1),
		"step.go": step,
	} {
		path := filepath.Join(dir, name)
		if err := write(path, []byte(content)); err != nil {
			return "", err
		}
		replaced[filepath.Join(root, "src", "time", name)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, write(path, list)
}

// write replaces a file at once: another build may be reading it.
func write(path string, content []byte) error {
	next := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(next, content, 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}
