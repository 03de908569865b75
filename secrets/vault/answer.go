package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// errAnswer is a good status with something that Vault would not say.
var errAnswer = errors.New("the answer is not that of a KV version 2 engine")

// get decodes what Vault says at a path; it is not there with status 404, with which Vault tells of a
// deleted version, too. Thousands of keyrings are read at each start, and the library would make maps
// of every answer first, to be made into JSON again.
func (s *Store) get(ctx context.Context, path string, query url.Values, into any) (there bool, err error) {
	res, err := s.client.Logical().ReadRawWithDataWithContext(ctx, s.mount+"/"+path, query)
	if res != nil {
		defer func() { _ = res.Body.Close() }()
	}
	gone := res != nil && res.StatusCode == http.StatusNotFound
	if err != nil && !gone {
		return false, err
	}
	body, readErr := io.ReadAll(res.Body)
	switch {
	case readErr != nil:
		return false, readErr
	case gone && len(body) == 0:
		return false, nil
	case json.Unmarshal(body, into) == nil:
		return !gone, nil
	case gone:
		return false, err // a proxy's page, which says nothing of what Vault has
	}
	return false, errAnswer
}

// answer is what Vault says of a version of a secret. Data is null if it was deleted or destroyed.
type answer struct {
	Data *struct {
		Data     json.RawMessage `json:"data"`
		Metadata *struct {
			Version      int64     `json:"version"`
			CreatedTime  time.Time `json:"created_time"`
			DeletionTime string    `json:"deletion_time"` // "": never
		} `json:"metadata"`
	} `json:"data"`
}

// read gives a version of the secret at a path, nil if there is none.
func (s *Store) read(ctx context.Context, path string, query url.Values) (*Version, error) {
	var v answer
	there, err := s.get(ctx, "data/"+path, query, &v)
	switch {
	case err != nil:
		return nil, err
	case !there && v.Data == nil:
		return nil, nil
	case v.Data == nil || v.Data.Metadata == nil:
		return nil, errAnswer
	}
	m := v.Data.Metadata
	got := &Version{Number: m.Version, Written: m.CreatedTime}
	if string(v.Data.Data) != "null" {
		got.Content = v.Data.Data
	}
	if m.DeletionTime != "" {
		if got.Deletes, err = time.Parse(time.RFC3339, m.DeletionTime); err != nil {
			return nil, fmt.Errorf("%w (deletion_time)", errAnswer)
		}
	}
	return got, nil
}

// names gives the names in a folder, none if it is not there.
func (s *Store) names(ctx context.Context, path string, query url.Values) ([]string, error) {
	var folder struct {
		Data *struct {
			Keys []string `json:"keys"` // absent beside a warning if the folder is not there
		} `json:"data"`
	}
	there, err := s.get(ctx, path, query, &folder)
	switch {
	case err != nil:
		return nil, err
	case folder.Data != nil:
		return folder.Data.Keys, nil
	case there:
		return nil, errAnswer
	}
	return nil, nil
}
