package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tiwkeyd/secrets"
)

// maxFile is the largest file that is read for keys.
const maxFile = 1 << 20

// File is a Reader of a file that somebody else keeps fresh, such as one that Vault Agent
// renders. It holds a keyring's JSON, or keys alone, one a line, each line ended: of JSON that is
// half written it is known.
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
	file, err := os.Open(path)
	if err != nil {
		return Keys{}, fmt.Errorf("read the keys of %s: %w", t, err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return Keys{}, fmt.Errorf("read the keys of %s: %w", t, err)
	case len(content) > maxFile:
		return Keys{}, fmt.Errorf("%s is larger than %d bytes: it is no file of keys", path, maxFile)
	case !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) && !bytes.HasSuffix(content, []byte("\n")):
		return Keys{}, fmt.Errorf("the last line of %s does not end: it may be half written", path)
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
	content = bytes.TrimSpace(content)
	if bytes.HasPrefix(content, []byte("{")) {
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
		if len(line) > secrets.MaxKeyLength || strings.ContainsAny(line, " \t\"{}[],:") {
			return Keys{}, fmt.Errorf("line %d is not a key, and the whole is not the JSON of a keyring", n)
		}
		keys.Accept = append(keys.Accept, secrets.NewKey(fmt.Sprintf("line-%d", n), line))
	}
	if len(keys.Accept) == 0 {
		return Keys{}, errors.New("there is no key in it")
	}
	return keys, nil
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
