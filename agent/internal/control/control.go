// Package control is the agent's HTTP interface, for its operator and for
// Prometheus.
package control

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/callgate/callgate/agent/internal/events"
)

// Container is one line of GET /v1/containers.
type Container struct {
	ID        string            `json:"id"`
	UID       uint32            `json:"uid"` // who registered it
	Profile   string            `json:"profile"`
	Listeners int               `json:"listeners"`
	InFlight  int               `json:"inFlight"`
	Calls     map[string]uint64 `json:"calls"` // by outcome
}

// Options are what a Server is made of.
type Options struct {
	Gatherer   prometheus.Gatherer
	Containers func() []Container
	Events     *events.Hub // borrowed; who closes it ends the streams
}

// Server serves any number of sockets.
type Server struct {
	full    http.Server
	metrics http.Server
}

// New makes a server.
func New(o Options) *Server {
	metrics := promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{})
	healthy := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // the reader is gone, if it fails
	}
	open := http.NewServeMux()
	open.Handle("GET /metrics", metrics)
	open.HandleFunc("GET /healthz", healthy)
	all := http.NewServeMux()
	all.Handle("GET /metrics", metrics)
	all.HandleFunc("GET /healthz", healthy)
	all.HandleFunc("GET /v1/containers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.Containers()) // as above
	})
	all.HandleFunc("GET /v1/events", stream(o.Events))
	const patience = 10 * time.Second
	return &Server{
		full:    http.Server{Handler: all, ReadHeaderTimeout: patience},
		metrics: http.Server{Handler: open, ReadHeaderTimeout: patience},
	}
}

// Control serves everything on l, which it takes ownership of, until Close.
func (s *Server) Control(l net.Listener) error { return ended(s.full.Serve(l)) }

// Metrics serves what anybody may see: /metrics and /healthz.
func (s *Server) Metrics(l net.Listener) error { return ended(s.metrics.Serve(l)) }

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends both.
func (s *Server) Close() {
	_ = s.full.Close() // connections that were in use: nobody's loss
	_ = s.metrics.Close()
}
