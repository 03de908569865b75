package tencent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"gopkg.in/ini.v1"

	"tiwkeyd/internal/private"
)

// fromProfile reads the file that Tencent's SDKs and its command line read: of TENCENTCLOUD_CREDENTIALS_FILE, else
// ~/.tencentcloud/credentials. Their own reader ends the process where the section [default] is missing.
func fromProfile(env func(string) string) fetch {
	return func(context.Context) (Credential, error) {
		path := env("TENCENTCLOUD_CREDENTIALS_FILE")
		if home := env("HOME"); path == "" && home != "" {
			path = filepath.Join(home, ".tencentcloud", "credentials")
		}
		if path == "" {
			return Credential{}, errors.New("neither TENCENTCLOUD_CREDENTIALS_FILE nor HOME is set")
		}
		return readProfile(path)
	}
}

// maxProfile bounds the file, in bytes.
const maxProfile = 1 << 20

func readProfile(path string) (Credential, error) {
	content, err := private.ReadFile(path, maxProfile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Credential{}, fmt.Errorf("there is no %s", path)
	case err != nil:
		return Credential{}, err
	}
	const form = "it has to have the line [default], and under it secret_id = …, secret_key = … and, of a temporary one, token = …"
	file, err := ini.LoadSources(ini.LoadOptions{SpaceBeforeInlineComment: true}, content)
	if err != nil {
		return Credential{}, fmt.Errorf("%s cannot be read as a credentials file: %s", path, form) // the parser quotes lines
	}
	// Values as they stand: %(…)s in one is no reference to another.
	value := func(name string) string { return file.Section("default").Key(name).Value() }
	c := Credential{value("secret_id"), value("secret_key"), value("token")}
	if c.id == "" || c.key == "" {
		return Credential{}, fmt.Errorf("%s lacks secret_id or secret_key: %s", path, form)
	}
	return c, nil
}
