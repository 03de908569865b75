package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/printable"
	"tiwkeyd/secrets"
	"tiwkeyd/webhook"
)

// uncovered is what no verdict can tell.
const uncovered = "The signature covers ExpireTime alone: whether anything else in the body is what Tencent sent cannot be told."

func (p *program) verifyCommand() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify [TARGET]",
		Short: "Tell whether a callback is genuine and with which key it was signed, or why not",
		Long: `verify reads the body of a callback from standard input or --file, and the keys of its
application from the store (TIWKEYD_STORE, VAULT_…) or --key-file. Without TARGET it looks at
the services of the callback's SdkAppId that TIWKEYD_TARGETS names, or else at all of them.

Exit status: 0 it is genuine; 3 it would be refused; 4 the keys cannot be read; 2 wrong usage.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.stdin = cmd.InOrStdin()
			return p.verify(cmd.Context(), f, args)
		},
	}
	c.Flags().StringVar(&f.file, "file", "-", "file with the body; - is standard input")
	c.Flags().StringVar(&f.keyFile, "key-file", "", "read the keys from this file, not from the store: a keyring's JSON, or one key a line")
	c.Flags().StringVar(&f.at, "at", "", "judge as of this time (RFC 3339), not of now")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

type verifyFlags struct {
	file, keyFile, at string
	json              bool
	stdin             io.Reader
}

// verdict is what verify tells. It holds no key and no signature.
type verdict struct {
	Genuine    bool       `json:"genuine"`
	Reason     string     `json:"reason,omitempty"` // one of webhook.Reason
	Words      []string   `json:"words"`
	Target     string     `json:"target,omitempty"` // whose key signed it
	KeyID      string     `json:"key_id,omitempty"`
	KeyState   string     `json:"key_state,omitempty"`
	SdkAppID   int64      `json:"sdk_app_id,omitempty"`
	EventType  string     `json:"event_type,omitempty"`
	ExpireTime *time.Time `json:"expire_time,omitempty"`
	At         time.Time  `json:"at"`
}

func (v *verdict) say(format string, args ...any) {
	v.Words = append(v.Words, fmt.Sprintf(format, args...))
}

func (p *program) verify(ctx context.Context, f verifyFlags, args []string) error {
	now := time.Now()
	if f.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return &exitError{code: exitUsage, err: fmt.Errorf("--at %q is not a time such as 2026-01-02T15:04:05Z", f.at)}
		}
	}
	var asked *secrets.Target
	if len(args) == 1 {
		t, err := secrets.ParseTarget(args[0])
		if err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		asked = &t
	}
	c, log, err := p.loadReceiver(config.Needs{Store: f.keyFile == ""})
	if err != nil {
		return err
	}
	body, err := f.body()
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	v := verdict{At: now.UTC().Truncate(time.Second)}
	callback, err := webhook.Parse(body)
	if err != nil {
		v.Reason = string(webhook.Malformed)
		v.say("It is not a callback: %s.", strings.TrimPrefix(err.Error(), v.Reason+": "))
		return p.deliver(f, v)
	}
	v.SdkAppID, v.EventType = callback.SdkAppID, callback.EventType
	if (callback.Signed || callback.ExpireTime != 0) && callback.ExpireTime < 1<<37 { // beyond, JSON has no such time
		expires := time.Unix(callback.ExpireTime, 0).UTC()
		v.ExpireTime = &expires
	}
	if asked != nil && asked.SdkAppID != callback.SdkAppID {
		v.Reason = string(webhook.WrongApplication)
		v.say("It is of SdkAppId %d, not of %d.", callback.SdkAppID, asked.SdkAppID)
		return p.deliver(f, v)
	}
	evidence, closeStore, err := f.evidence(c, log)
	if err != nil {
		return err
	}
	defer closeStore()
	if err := evidence.judge(ctx, &v, &callback, now, f.targets(c, asked, callback.SdkAppID)); err != nil {
		return &exitError{code: exitUnsettled, err: err}
	}
	return p.deliver(f, v)
}

// body reads the callback.
func (f *verifyFlags) body() ([]byte, error) {
	in := f.stdin
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	body, err := io.ReadAll(io.LimitReader(in, webhook.DefaultMaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the callback: %w", err)
	}
	if len(body) > webhook.DefaultMaxBody {
		return nil, fmt.Errorf("the callback is longer than %d bytes", webhook.DefaultMaxBody)
	}
	return body, nil
}

// targets lists whose keys may have signed the callback.
func (f *verifyFlags) targets(c *config.Config, asked *secrets.Target, app int64) []secrets.Target {
	if asked != nil {
		return []secrets.Target{*asked}
	}
	if f.keyFile != "" {
		return []secrets.Target{{SdkAppID: app}} // of whatever service
	}
	named := slices.DeleteFunc(slices.Clone(c.Targets), func(t secrets.Target) bool { return t.SdkAppID != app })
	if len(named) > 0 {
		return named
	}
	for _, s := range secrets.Services() {
		named = append(named, secrets.Target{SdkAppID: app, Service: s})
	}
	return named
}

// deliver prints the verdict.
func (p *program) deliver(f verifyFlags, v verdict) error {
	v.Words = append(v.Words, uncovered)
	if f.json {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return err
		}
	} else {
		word := "genuine"
		if !v.Genuine {
			word = "refused: " + v.Reason
		}
		fmt.Fprintln(p.stdout, word)
		for _, w := range v.Words {
			fmt.Fprintln(p.stdout, "  "+printable.Text(w))
		}
	}
	if !v.Genuine {
		return &exitError{code: exitRefused, err: errors.New("the callback would be refused: " + v.Reason)}
	}
	return nil
}
