package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/callgate/callgate/agent"
	"github.com/callgate/callgate/hooks/profile"
)

func profileCommand() *cobra.Command {
	var cfg agent.Config
	var base, name, socket, format string
	var wait bool
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Print a seccomp profile that has calls stopped for the agent",
		Long: `Prints an OCI seccomp profile on standard output: a base profile in which the
calls that a profile of the configuration emulates are handed to the agent.

Use it as linux.seccomp of a runtime's config.json, or as the file of
podman run --security-opt seccomp=FILE.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "oci" {
				return fmt.Errorf("--format %q: want oci", format)
			}
			options := profile.Options{ListenerPath: socket, WaitKillable: wait}
			return printProfile(cmd.OutOrStdout(), cfg, base, name, options)
		},
	}
	configFlag(cmd, &cfg.ConfigFile)
	flags := cmd.Flags()
	flags.StringVar(&base, "base", "", "profile to begin with, OCI's or Docker's format (default: callgate's own)")
	flags.StringVar(&name, "profile", "default", "profile of the configuration")
	flags.StringVar(&socket, "socket", agent.DefaultSocket, "the agent's socket (listenerPath)")
	flags.StringVar(&format, "format", "oci", "oci")
	flags.BoolVar(&wait, "wait-killable", false, "have signals wait for an answer (WAIT_KILLABLE_RECV): crun 1.6, runc 1.5 with libseccomp 2.6")
	return cmd
}

func printProfile(out io.Writer, cfg agent.Config, base, name string, options profile.Options) error {
	var err error
	if options.Emulators, err = agent.ProfileKinds(cfg, name); err != nil {
		return err
	}
	var text []byte
	if base != "" {
		if text, err = os.ReadFile(base); err != nil {
			return fmt.Errorf("read base profile: %w", err)
		}
	}
	result, err := profile.Compile(text, options)
	if err != nil {
		if base != "" {
			return fmt.Errorf("%s: %w", base, err)
		}
		return err
	}
	for _, warning := range result.Warnings {
		fmt.Fprintf(os.Stderr, "callgate: warning: %s\n", warning)
	}
	json, err := result.JSON()
	if err != nil {
		return err
	}
	_, err = out.Write(json)
	return err
}
