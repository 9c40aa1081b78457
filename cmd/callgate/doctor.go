package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/callgate/callgate/cmd/callgate/internal/doctor"
)

func doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel and host can do, and what it costs if not",
		Long: `Tries what callgate uses of the kernel and of the host, and says what is
missing and what that costs. Everything is tried, nothing inferred from a
version; "unknown" is what could not be told. Nothing is left behind.

Exits 1 only if an agent could not work here at all. Run it as the agent
runs: as root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			items := doctor.Examine(cmd.Context())
			write := doctor.Text
			if asJSON {
				write = doctor.JSON
			}
			if err := write(cmd.OutOrStdout(), items); err != nil {
				return fmt.Errorf("write report: %w", err)
			}
			return doctor.Hopeless(items)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
