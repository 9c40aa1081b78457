// Command callgate carries out system calls on behalf of containers that may
// not make them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	// The process's first thread is never ended by Go's runtime, and it is what
	// /proc shows of the process: no reactor may have it and leave it changed.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:]))
}

// exitStatus is an error that only sets the exit status.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	// Several lines are several errors (callgate check); each gets the name.
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(os.Stderr, "callgate: %s\n", line)
		}
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "callgate",
		Short: "Carry out system calls on behalf of unprivileged containers",
		Long: `callgate carries out system calls that unprivileged containers are refused,
such as mknod, by the operator's policy. A container's seccomp filter stops the
call, the OCI runtime hands the filter's listener to the agent, the agent does
what the caller would be allowed to do if its container were trusted with
exactly this, and answers. The program inside is unmodified.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		agentCommand(),
		runCommand(),
		initCommand(),
		fuseServerCommand(),
		profileCommand(),
		checkCommand(),
		psCommand(),
		traceCommand(),
		doctorCommand(),
		versionCommand(),
	)
	return root
}
