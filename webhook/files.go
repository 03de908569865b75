package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tiwkeyd/internal/private"
	"tiwkeyd/secrets"
)

// maxFile is the largest file that is read for keys.
const maxFile = 1 << 20

// File is a Reader of a file that somebody else keeps fresh, such as one that Vault Agent
// renders. It holds a keyring's JSON, or keys alone, one a line. Whoever writes it puts a whole new file in its place:
// keys alone that are half written look like others. Nobody else may read or write it.
type File string

// ReadKeys reads the file.
func (f File) ReadKeys(_ context.Context, t Target) (Keys, error) {
	return readFile(string(f), t)
}

// String names the file.
func (f File) String() string { return "file " + string(f) }

// Files is a Reader of one file for each target.
type Files map[Target]string

// ReadKeys reads the target's file.
func (f Files) ReadKeys(_ context.Context, t Target) (Keys, error) {
	path, ok := f[t]
	if !ok {
		return Keys{}, fmt.Errorf("there is no file for %s", t)
	}
	return readFile(path, t)
}

// String tells how many there are.
func (f Files) String() string { return fmt.Sprintf("%d files", len(f)) }

// FileStore is a Reader of the directory that tiwkeyd's file store keeps keyrings in.
type FileStore string

// ReadKeys reads the target's file in the store.
func (d FileStore) ReadKeys(_ context.Context, t Target) (Keys, error) {
	return readFile(filepath.Join(string(d), strconv.FormatInt(t.SdkAppID, 10), string(t.Service)+".json"), t)
}

// String names the directory.
func (d FileStore) String() string { return "file store " + string(d) }

func readFile(path string, t Target) (Keys, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Keys{}, fmt.Errorf("read %s: %w", path, ErrNoKeyring)
	case err != nil:
		return Keys{}, fmt.Errorf("read the keys of %s: %w", t, err)
	case !info.Mode().IsRegular():
		return Keys{}, fmt.Errorf("%s is not a file", path) // a pipe might never end
	}
	content, err := private.ReadFile(path, maxFile)
	if err != nil {
		return Keys{}, fmt.Errorf("read the keys of %s: %w", t, err)
	}
	keys, err := ParseKeys(t, content)
	if err != nil {
		return Keys{}, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads what holds keys: a keyring's JSON, a file of the file store, or keys alone,
// one a line.
func ParseKeys(t Target, content []byte) (Keys, error) {
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		var envelope struct{ Keyring json.RawMessage }
		if json.Unmarshal(content, &envelope) == nil && envelope.Keyring != nil {
			content = envelope.Keyring
		}
		return DecodeKeys(t, content)
	}
	keys := Keys{SdkAppID: t.SdkAppID}
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if why := noKey(line); why != "" {
			return Keys{}, fmt.Errorf("line %d is not a key, and the whole is not the JSON of a keyring: %s", n, why)
		}
		keys.Accept = append(keys.Accept, secrets.NewKey(fmt.Sprintf("line-%d", n), line))
	}
	if len(keys.Accept) == 0 {
		return Keys{}, errors.New("there is no key in it")
	}
	return keys, nil
}

// noKey says why a line cannot be a key, without quoting it; "" if it can.
func noKey(line string) string {
	switch {
	case strings.HasPrefix(line, "#"):
		return "it is a comment"
	case slices.Contains([]string{"null", "<null>", "nil", "<nil>", "none", "undefined", "true", "false"}, strings.ToLower(line)):
		return "it is what a program writes that has no key"
	case len(line) > secrets.MaxKeyLength:
		return fmt.Sprintf("it has more than %d characters", secrets.MaxKeyLength)
	case strings.ContainsFunc(line, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.ContainsAny(line, "\"{}[],:"):
		return "there is a blank or another character in it that no key has"
	}
	return ""
}

// Environment is a source of the keys in a variable of the environment, with the content that
// ParseKeys reads; commas may stand for line ends.
func Environment(name string, t Target) (Static, error) {
	value := strings.TrimSpace(os.Getenv(name))
	if value == "" {
		return nil, fmt.Errorf("the variable %s is not set", name)
	}
	if !strings.HasPrefix(value, "{") {
		value = strings.ReplaceAll(value, ",", "\n")
	}
	keys, err := ParseKeys(t, []byte(value))
	if err != nil {
		return nil, fmt.Errorf("the variable %s: %w", name, err)
	}
	return Static{keys}, nil
}
