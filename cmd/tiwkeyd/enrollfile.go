package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"tiwkeyd/internal/bounded"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// enrollment is a target to be enrolled, with settings of its own or without.
type enrollment struct {
	target    secrets.Target
	overrides bool
	override  func(*rotator.Overrides)
}

type enrollList []enrollment

// maxEnrollFile bounds what is read, in bytes: a hundred thousand targets take a few million.
const maxEnrollFile = 64 << 20

func enrollFormat(f enrollFlags) (string, error) {
	format := f.format
	if format == "" {
		format = strings.TrimPrefix(strings.ToLower(filepath.Ext(f.file)), ".")
	}
	if format != "csv" && format != "json" {
		return "", fmt.Errorf("--from-file %s: its name ends with neither .csv nor .json: say which it is with --format", f.file)
	}
	return format, nil
}

func enrollArgs(args []string) (enrollList, error) {
	var g gatherer
	for _, arg := range args {
		g.add("", map[string]string{"target": arg})
	}
	return g.list, atMost(g.errs)
}

func readEnrollments(in io.Reader, format, name string) (enrollList, error) {
	data, err := bounded.Text(in, "it", maxEnrollFile)
	var g gatherer
	if err == nil && format == "csv" {
		err = g.csv(data)
	} else if err == nil {
		err = g.json(data)
	}
	if err == nil && len(g.list) == 0 && len(g.errs) == 0 {
		err = errors.New("there is no target in it")
	}
	if err == nil {
		err = atMost(g.errs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: nothing was changed: %w", name, err)
	}
	return g.list, nil
}

// gatherer collects targets, and all that is wrong.
type gatherer struct {
	list enrollList
	seen map[secrets.Target]string
	errs []error
}

// enrollFields are the names of columns and members.
var enrollFields = append([]string{"target", "sdk_app_id", "service"}, overrideNames...)

// add takes one target; where says where it stands, "" if that is plain.
func (g *gatherer) add(where string, fields map[string]string) {
	name := fields["target"]
	if id := fields["sdk_app_id"]; id != "" && name == "" {
		if name = id; fields["service"] != "" {
			name += "/" + fields["service"]
		}
	} else if id != "" {
		g.fail(where, errors.New("it has both a target and a sdk_app_id"))
		return
	}
	t, err := secrets.ParseTarget(name)
	if err != nil {
		g.fail(where, err)
		return
	}
	if g.seen == nil {
		g.seen = map[secrets.Target]string{}
	}
	if at, twice := g.seen[t]; twice {
		if at != "" {
			at = ", first in " + at
		}
		g.fail(where, fmt.Errorf("%s is there twice%s", t, at))
		return
	}
	g.seen[t] = where
	var pairs []string
	for _, o := range overrideNames {
		if v := strings.TrimSpace(fields[o]); v != "" {
			pairs = append(pairs, o+"="+v)
		}
	}
	override, err := parseOverrides(pairs)
	if err != nil {
		g.fail(where, fmt.Errorf("%s: %w", t, err))
		return
	}
	g.list = append(g.list, enrollment{t, len(pairs) > 0, override})
}

func (g *gatherer) fail(where string, err error) {
	if where != "" {
		err = fmt.Errorf("%s: %w", where, err)
	}
	g.errs = append(g.errs, err)
}

func (g *gatherer) csv(data []byte) error {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("it has no header line: %w", err)
	}
	for i, name := range header {
		header[i] = strings.ToLower(strings.TrimSpace(name))
	}
	if !slices.Contains(header, "target") && !slices.Contains(header, "sdk_app_id") {
		return fmt.Errorf("its first line names neither a column target nor sdk_app_id; the columns are %s", strings.Join(enrollFields, ", "))
	}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // it has the line, and where the next one begins is not known
		}
		line, _ := r.FieldPos(0)
		where := fmt.Sprintf("line %d", line)
		if len(record) != len(header) {
			g.fail(where, fmt.Errorf("it has %d fields, the header %d", len(record), len(header)))
			continue
		}
		fields := map[string]string{}
		for i, v := range record {
			fields[header[i]] = strings.TrimSpace(v)
		}
		g.add(where, fields)
	}
}

func (g *gatherer) json(data []byte) error {
	var entries []json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return fmt.Errorf("it is not a JSON list: %w", err)
	}
	for i, raw := range entries {
		where := fmt.Sprintf("entry %d", i+1)
		var name string
		if json.Unmarshal(raw, &name) == nil {
			g.add(where, map[string]string{"target": name})
			continue
		}
		var members map[string]any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if d.Decode(&members) != nil {
			g.fail(where, errors.New("it is neither a text nor an object"))
			continue
		}
		fields := map[string]string{}
		for member, v := range members {
			if !slices.Contains(enrollFields, member) {
				g.fail(where, fmt.Errorf("it has the unknown member %q; there are %s", member, strings.Join(enrollFields, ", ")))
			}
			fields[member] = fmt.Sprint(v)
		}
		g.add(where, fields)
	}
	return nil
}

// atMost joins errors, of many the first.
func atMost(errs []error) error {
	const shown = 20
	if more := len(errs) - shown; more > 0 {
		errs = append(slices.Clone(errs[:shown]), fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}
