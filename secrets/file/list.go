package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tiwkeyd/secrets"
)

// Targets lists the targets that have a file. strange counts names that are no target's.
func (s *Store) Targets(ctx context.Context, _ []secrets.Target) (all []secrets.Target, strange int, err error) {
	apps, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("file store: list %s: %w", s.dir, advise(err))
	}
	for _, app := range apps {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		files, err := os.ReadDir(filepath.Join(s.dir, app.Name()))
		switch {
		case !app.IsDir() || errors.Is(err, os.ErrNotExist):
			strange++
			continue
		case err != nil:
			return nil, 0, fmt.Errorf("file store: list %s: %w", filepath.Join(s.dir, app.Name()), advise(err))
		}
		for _, f := range files {
			service, ok := strings.CutSuffix(f.Name(), ".json")
			t, err := secrets.ParseTarget(app.Name() + "/" + service)
			switch {
			case ok && err == nil:
				all = append(all, t)
			case !strings.HasSuffix(f.Name(), ".lock") && !strings.HasSuffix(f.Name(), ".tmp"):
				strange++
			}
		}
	}
	return all, strange, nil
}
