package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manualCommand writes the manual pages, for packages: what --help says, once for each command.
// Their date is SOURCE_DATE_EPOCH, so that the same source gives the same pages.
func (p *program) manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual DIRECTORY",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
			if err != nil {
				return &exitError{code: exitUsage, err: fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds: %w", err)}
			}
			date := time.Unix(epoch, 0).UTC()
			cmd.Root().DisableAutoGenTag = true
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "TIWKEYD", Section: "1", Source: "tiwkeyd " + builtFrom().Version, Manual: "tiwkeyd", Date: &date}, args[0])
		},
	}
}
