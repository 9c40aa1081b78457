// Package metrics holds the agent's Prometheus metrics. Labels come from
// closed sets: emulator, syscall, outcome.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Outcome is how a call ended.
type Outcome int

// The outcomes.
const (
	Answered  Outcome = iota // carried out, or tried: the answer is the kernel's
	Denied                   // policy said no
	Invalid                  // the caller's arguments were bad
	Failed                   // ours: nothing was done, the caller got EPERM
	Gone                     // nobody waited for the answer any more
	Continued                // left to the kernel
	outcomes
)

// String is the label and the log field.
func (o Outcome) String() string {
	return [...]string{"answered", "denied", "invalid", "failed", "gone", "continued"}[o]
}

// Metrics is one agent's. Safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// New makes them. listeners and inFlight are asked when they are scraped.
func New(listeners, inFlight func() float64) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "callgate_requests_total",
			Help: "Intercepted system calls by how they ended.",
		}, []string{"emulator", "syscall", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "callgate_request_seconds",
			Help:    "Time from receiving a call to its answer.",
			Buckets: prometheus.ExponentialBuckets(2e-6, 2, 22), // 2 µs to 4 s
		}, []string{"emulator", "syscall"}),
	}
	m.registry.MustRegister(m.requests, m.seconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "callgate_listeners", Help: "Seccomp listeners that are served.",
		}, listeners),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "callgate_in_flight", Help: "Calls received and not yet answered.",
		}, inFlight),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Gatherer is what an HTTP handler serves.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Call is the metrics of one system call, looked up once: the path of a call
// goes through no map.
type Call struct {
	ended   [outcomes]prometheus.Counter
	seconds prometheus.Observer
}

// For makes the metrics of a call.
func (m *Metrics) For(emulator, syscall string) *Call {
	c := &Call{seconds: m.seconds.WithLabelValues(emulator, syscall)}
	for o := range outcomes {
		c.ended[o] = m.requests.WithLabelValues(emulator, syscall, o.String())
	}
	return c
}

// Observe counts one call and its time.
func (c *Call) Observe(o Outcome, took time.Duration) {
	c.ended[o].Inc()
	c.seconds.Observe(took.Seconds())
}
