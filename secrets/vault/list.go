package vault

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"tiwkeyd/secrets"
)

const (
	// listPage is how many names are asked for at once, of a server that gives them in pages.
	listPage = 1000
	// listWidth is how many folders are listed at the same time: each has a connection to keep.
	listWidth = idleConnections
)

// Targets lists the targets that have a secret under the prefix; of a deleted one the name stays
// until its metadata is deleted, too. Folders of applications among known are not looked into again:
// their targets are those known, if the folder is still there. strange counts names that are no
// target's.
func (s *Store) Targets(ctx context.Context, known []secrets.Target) (all []secrets.Target, strange int, err error) {
	had := map[string][]secrets.Target{}
	for _, t := range known {
		app := strconv.FormatInt(t.SdkAppID, 10)
		had[app] = append(had[app], t)
	}
	names, err := s.list(ctx, s.prefix, listPage)
	if err != nil {
		return nil, 0, err
	}
	var open []string
	for _, name := range names {
		app, folder := strings.CutSuffix(name, "/")
		switch id, err := strconv.ParseInt(app, 10, 64); {
		case !folder || err != nil || id <= 0 || strconv.FormatInt(id, 10) != app:
			strange++
		case had[app] != nil:
			all = append(all, had[app]...)
		default:
			open = append(open, app)
		}
	}
	found, odd := make([][]secrets.Target, len(open)), make([]int, len(open))
	group, ctx := errgroup.WithContext(ctx)
	for first := range min(listWidth, len(open)) {
		group.Go(func() error {
			for i := first; i < len(open); i += listWidth {
				names, err := s.list(ctx, strings.TrimPrefix(s.prefix+"/"+open[i], "/"), 0)
				if err != nil {
					return err
				}
				for _, name := range names {
					if t, err := secrets.ParseTarget(open[i] + "/" + name); err == nil {
						found[i] = append(found[i], t)
					} else {
						odd[i]++
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	for i := range found {
		all, strange = append(all, found[i]...), strange+odd[i]
	}
	return all, strange, nil
}

// list gives the names in a folder, none if it is not there. Vault gives all at once; OpenBao gives
// so many at a time to who asks for pages (0: all), which costs Vault a warning in each answer.
func (s *Store) list(ctx context.Context, folder string, page int) ([]string, error) {
	path := "metadata/" + folder
	var all []string
	for after := ""; ; {
		var names []string
		err := s.call(ctx, "list", path, "list", func(ctx context.Context) (err error) {
			names, err = s.listPage(ctx, path, page, after)
			return err
		})
		if err != nil {
			return nil, err
		}
		if after != "" && len(names) > 0 && names[0] <= after {
			return all, nil // it gives the same names whatever is asked for
		}
		if all = append(all, names...); page == 0 || len(names) != page {
			return all, nil
		}
		after = names[len(names)-1]
	}
}

func (s *Store) listPage(ctx context.Context, path string, page int, after string) ([]string, error) {
	known, err := s.checkMount(ctx)
	if err != nil {
		return nil, err
	}
	query := url.Values{"list": {"true"}}
	if page > 0 {
		query.Set("limit", strconv.Itoa(page))
	}
	if after != "" {
		query.Set("after", after)
	}
	names, err := s.names(ctx, path, query)
	if err == nil && len(names) == 0 && !known {
		return nil, ErrNoMount // Vault would tell of it to a token that may list in it
	}
	return names, err
}
