package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// secretVariables may not stand in a file that others can read.
var secretVariables = []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN", "TIWKEYD_HTTP_TOKEN"}

// maxEnvFile is the largest file of variables that is read.
const maxEnvFile = 1 << 20

// EnvFile is a file of variables, NAME=VALUE, that can be read again while the program runs.
// A variable of the process's own environment goes before one of the file. It is the one
// place that changes the process's environment, because the libraries read theirs there.
type EnvFile struct {
	path string
	set  map[string]string // what came from the file
}

// NewEnvFile gives the file at path; "" is no file.
func NewEnvFile(path string) *EnvFile { return &EnvFile{path: path} }

// Apply reads the file into the process's environment; what an earlier Apply put there and
// the file has no more is taken out. A file that cannot be read changes nothing. undo puts
// everything back as it was.
func (f *EnvFile) Apply() (undo func(), err error) {
	if f.path == "" {
		return func() {}, nil
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	if info.Size() > maxEnvFile {
		return nil, fmt.Errorf("--env-file %s: it is larger than %d bytes, and no list of variables", f.path, maxEnvFile)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	defer func() { _ = file.Close() }()
	values, err := godotenv.Parse(io.LimitReader(file, maxEnvFile)) // a pipe tells no size
	if err != nil {
		// The parser's error quotes the line, which may hold a secret.
		return nil, fmt.Errorf("--env-file %s: it is not a list of NAME=VALUE lines", f.path)
	}
	for _, name := range secretVariables {
		if _, ok := values[name]; ok && info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("--env-file %s: it holds %s and can be read by others (mode %04o): chmod go= %s", f.path, name, info.Mode().Perm(), f.path)
		}
	}
	next := map[string]string{}
	for name, value := range values {
		_, ours := f.set[name]
		if _, has := os.LookupEnv(name); ours || !has {
			next[name] = value
		}
	}
	was := f.set
	undo = func() { _ = f.replace(was) }
	if err := f.replace(next); err != nil {
		undo()
		return nil, fmt.Errorf("--env-file %s: %w", f.path, err)
	}
	return undo, nil
}

// replace has next in the environment instead of what the file put there before.
func (f *EnvFile) replace(next map[string]string) error {
	for name := range f.set {
		if _, stays := next[name]; !stays {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	f.set = next
	for name, value := range next {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Names lists the variables that came from the file, for the log.
func (f *EnvFile) Names() string { return strings.Join(slices.Sorted(maps.Keys(f.set)), ", ") }
