package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/callgate/callgate/agent"
)

// served is a line of the agent's GET /v1/containers.
type served struct {
	ID        string            `json:"id"`
	UID       uint32            `json:"uid"`
	Profile   string            `json:"profile"`
	Listeners int               `json:"listeners"`
	InFlight  int               `json:"inFlight"`
	Calls     map[string]uint64 `json:"calls"`
}

func psCommand() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List containers: listeners, calls answered, denied, failed, in flight",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := containers(cmd.Context(), socket)
			if err != nil {
				return fmt.Errorf("ask the agent at %s: %w", socket, err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			return printContainers(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().StringVar(&socket, "control", agent.DefaultControl, "the agent's control socket")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func containers(ctx context.Context, socket string) ([]served, error) {
	client := controlClient(socket)
	client.Timeout = 10 * time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://callgate/v1/containers", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	}
	var list []served
	err = json.NewDecoder(resp.Body).Decode(&list)
	return list, err
}

func printContainers(out io.Writer, list []served) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tPROFILE\tLISTENERS\tANSWERED\tDENIED\tFAILED\tIN FLIGHT")
	for _, c := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", name(c.ID), name(c.Profile), c.Listeners,
			c.Calls["answered"]+c.Calls["continued"], c.Calls["denied"], c.Calls["failed"]+c.Calls["invalid"], c.InFlight)
	}
	return w.Flush()
}
