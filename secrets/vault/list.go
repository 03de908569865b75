package vault

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"tiwkeyd/rotator"
)

const (
	// listPage is how many names are asked for at once, of a server that gives them in pages.
	listPage = 1000
	// listWidth is how many folders are listed at the same time.
	listWidth = 16
)

// Targets lists the targets that have a secret under the prefix; of a deleted one the name stays
// until its metadata is deleted, too. Folders of applications among known are not looked into again:
// their targets are those known, if the folder is still there. strange counts names that are no
// target's.
func (s *Store) Targets(ctx context.Context, known []rotator.Target) (all []rotator.Target, strange int, err error) {
	had := map[string][]rotator.Target{}
	for _, t := range known {
		app := strconv.FormatInt(t.SdkAppID, 10)
		had[app] = append(had[app], t)
	}
	names, err := s.list(ctx, s.prefix)
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
	found, odd := make([][]rotator.Target, len(open)), make([]int, len(open))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listWidth)
	for i, app := range open {
		group.Go(func() error {
			names, err := s.list(ctx, strings.TrimPrefix(s.prefix+"/"+app, "/"))
			for _, name := range names {
				if t, err := rotator.ParseTarget(app + "/" + name); err == nil {
					found[i] = append(found[i], t)
				} else {
					odd[i]++
				}
			}
			return err
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
// pages to who asks for them.
func (s *Store) list(ctx context.Context, folder string) ([]string, error) {
	path := "metadata/" + folder
	var all []string
	for after := ""; ; {
		var page []string
		err := s.call(ctx, "list", path, "list", func(ctx context.Context) (err error) {
			page, err = s.listPage(ctx, path, after)
			return err
		})
		if err != nil {
			return nil, err
		}
		if after != "" && len(page) > 0 && page[0] <= after {
			return all, nil // it gives the same names whatever is asked for
		}
		if all = append(all, page...); len(page) != listPage {
			return all, nil
		}
		after = page[len(page)-1]
	}
}

func (s *Store) listPage(ctx context.Context, path, after string) ([]string, error) {
	if _, err := s.checkMount(ctx); err != nil {
		return nil, err
	}
	query := url.Values{"list": {"true"}, "limit": {strconv.Itoa(listPage)}}
	if after != "" {
		query.Set("after", after)
	}
	got, err := s.client.Logical().ReadWithDataWithContext(ctx, s.mount+"/"+path, query)
	if status(err) == http.StatusNotFound || (err == nil && got == nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys, _ := got.Data["keys"].([]any)
	var names []string
	for _, k := range keys {
		if name, ok := k.(string); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
