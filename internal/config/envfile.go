package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"

	"tiwkeyd/internal/private"
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
	if f.path == "" || f.path == os.DevNull {
		return func() {}, nil
	}
	file, err := private.Read(f.path, maxEnvFile)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	values, err := variablesOf(string(file.Content))
	if err != nil {
		return nil, fmt.Errorf("--env-file %s: %w", f.path, err)
	}
	for _, name := range secretVariables {
		if _, ok := values[name]; ok {
			if err := file.Secret(); err != nil {
				return nil, fmt.Errorf("--env-file: it holds %s: %w", name, err)
			}
		}
	}
	next := map[string]string{}
	for name, value := range values {
		if strings.HasSuffix(strings.ToUpper(name), "PROXY") && strings.Contains(value, "@") {
			if err := file.Secret(); err != nil {
				return nil, fmt.Errorf("--env-file: it holds %s with a password: %w", name, err)
			}
		}
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

// variablesOf reads lines of the form NAME=VALUE. A $ is one, as for systemd and Docker, which read the same file: the
// parser would put another variable in its place. Its errors quote the line, which may hold a secret.
func variablesOf(text string) (map[string]string, error) {
	const dollar = "\ufdd0" // stands in no text: Unicode has no such character
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "$", dollar)
	parse := func(text string) (map[string]string, error) {
		values, err := godotenv.Unmarshal(text)
		if _, odd := values[""]; err == nil && odd { // a line without =
			err = errors.New("a name is missing")
		}
		return values, err
	}
	values, err := parse(text)
	if err != nil {
		good, lines := 0, strings.SplitAfter(text, "\n")
		for n := range lines { // a quoted value has several lines
			if _, err := parse(strings.Join(lines[:n], "")); err == nil {
				good = n
			}
		}
		return nil, fmt.Errorf("line %d is not of the form NAME=VALUE, or its quotes are not closed", good+1)
	}
	for name, value := range values {
		values[name] = strings.ReplaceAll(value, dollar, "$")
	}
	return values, nil
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
