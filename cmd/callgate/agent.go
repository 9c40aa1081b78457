package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/callgate/callgate/agent"
)

func agentCommand() *cobra.Command {
	var cfg agent.Config
	var level, format string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Serve the containers of this host",
		Long: `Takes listeners from OCI runtimes and answers their containers' calls.

SIGTERM and SIGINT answer what is in flight and exit 0; SIGHUP reads the
configuration again and keeps the old one if the new one is bad.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(level, format)
			if err != nil {
				return err
			}
			cfg.Log = log
			return serve(cmd.Context(), agent.New(cfg), log)
		},
	}
	flags := cmd.Flags()
	configFlag(cmd, &cfg.ConfigFile)
	flags.StringVar(&cfg.Socket, "socket", agent.DefaultSocket, "where runtimes register listeners (listenerPath)")
	flags.StringVar(&cfg.Control, "control", agent.DefaultControl, "where this agent answers its operator (HTTP)")
	flags.StringVar(&cfg.Metrics, "metrics", "", "TCP address for /metrics and /healthz, such as 127.0.0.1:9464")
	flags.StringVar(&level, "log-level", "info", "error, warn, info or debug (debug: one line for each call)")
	flags.StringVar(&format, "log-format", "text", "text or json")
	return cmd
}

func configFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "config", "", "configuration file (default "+agent.DefaultConfig+"; if there is none: mknod on)")
}

func newLog(level, format string) (*logrus.Logger, error) {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	l, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level %q: want error, warn, info or debug", level)
	}
	log.SetLevel(l)
	switch format {
	case "text":
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true})
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{})
	default:
		return nil, fmt.Errorf("--log-format %q: want text or json", format)
	}
	return log, nil
}

// serve runs the agent until a signal ends it.
func serve(ctx context.Context, a *agent.Agent, log *logrus.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				if err := a.Reload(); err != nil {
					log.WithError(err).Error("configuration is bad, the old one stays")
				} else {
					log.Info("configuration read again")
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return a.Serve(ctx)
}
