package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// secretVariables may not stand in a file that others can read.
var secretVariables = []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN"}

// EnvFile is a file of variables, NAME=VALUE, that can be read again while the program runs.
// A variable of the process's own environment goes before one of the file. It is the one
// place that changes the process's environment, because the libraries read theirs there.
type EnvFile struct {
	path string
	set  []string // names that came from the file
}

// NewEnvFile gives the file at path; "" is no file.
func NewEnvFile(path string) *EnvFile { return &EnvFile{path: path} }

// Apply reads the file into the process's environment; what an earlier Apply put there and
// the file has no more is taken out. A file that cannot be read changes nothing.
func (f *EnvFile) Apply() error {
	if f.path == "" {
		return nil
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	values, err := godotenv.Read(f.path)
	if err != nil {
		// The parser's error quotes the line, which may hold a secret.
		return fmt.Errorf("--env-file %s: it is not a list of NAME=VALUE lines", f.path)
	}
	for _, name := range secretVariables {
		if _, ok := values[name]; ok && info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("--env-file %s: it holds %s and can be read by others (mode %04o): chmod go= %s", f.path, name, info.Mode().Perm(), f.path)
		}
	}
	for _, name := range f.set {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("--env-file %s: %w", f.path, err)
		}
	}
	f.set = f.set[:0]
	for name, value := range values {
		if _, own := os.LookupEnv(name); own {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("--env-file %s: %s: %w", f.path, name, err)
		}
		f.set = append(f.set, name)
	}
	slices.Sort(f.set)
	return nil
}

// Names lists the variables that came from the file, for the log.
func (f *EnvFile) Names() string { return strings.Join(f.set, ", ") }
