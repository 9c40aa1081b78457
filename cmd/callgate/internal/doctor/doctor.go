// Package doctor finds out what this kernel and this host can do for callgate.
//
// Everything is tried, nothing is inferred from a version. A probe has three
// outcomes: it works, it does not, or it could not be told. Probes leave
// nothing behind: no descriptor, no thread, no process, no file, no mount.
package doctor

import (
	"context"
	"errors"
	"fmt"
)

// State is the outcome of a probe.
type State int

// The outcomes. The zero value has found out nothing.
const (
	Unknown State = iota
	OK
	Missing
)

// String is the word that tables and JSON have.
func (s State) String() string {
	switch s {
	case OK:
		return "ok"
	case Missing:
		return "missing"
	default:
		return "unknown"
	}
}

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Item is one line of the report. The JSON names and the ids are stable.
type Item struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	State State  `json:"state"`
	// Required says that without it the agent cannot do its work at all.
	Required bool `json:"required"`
	// Found is what was seen: a version, a number, the error.
	Found string `json:"found,omitempty"`
	// Cost is what is lost where the state is not OK.
	Cost string `json:"cost,omitempty"`
}

// probe is one question.
type probe struct {
	id, title string
	cost      string
	try       func(ctx context.Context) finding
	required  bool
}

// finding is a probe's answer.
type finding struct {
	state State
	found string
	cost  string // in place of the probe's, where it depends on what was found
}

func yes(found string) finding { return finding{state: OK, found: found} }

func no(found string) finding { return finding{state: Missing, found: found} }

func unsure(err error) finding { return finding{state: Unknown, found: err.Error()} }

// tell judges by an error: nil is yes, one of lacking is no, and any other
// leaves it open.
func tell(err error, lacking ...error) finding {
	if err == nil {
		return yes("")
	}
	for _, lack := range lacking {
		if errors.Is(err, lack) {
			return no(err.Error())
		}
	}
	return unsure(err)
}

// Examine tries everything, one after the other, within a second or so; ctx
// bounds the programs that it starts. The order of the items is fixed.
func Examine(ctx context.Context) []Item {
	var probes []probe
	probes = append(probes, kernelProbes()...)
	probes = append(probes, mountProbes()...)
	probes = append(probes, abiProbes()...)
	probes = append(probes, capabilityProbes()...)
	probes = append(probes, hostProbes()...)
	items := make([]Item, 0, len(probes))
	for _, p := range probes {
		items = append(items, p.item(ctx))
	}
	return items
}

func (p probe) item(ctx context.Context) Item {
	f := p.try(ctx)
	item := Item{ID: p.id, Title: p.title, State: f.state, Required: p.required, Found: f.found}
	if f.state == OK {
		return item
	}
	item.Cost = p.cost
	if f.cost != "" {
		item.Cost = f.cost
	}
	return item
}

// Hopeless returns nil if an agent can work here, even if not as well as
// elsewhere; otherwise it names what is missing. What could not be told is not
// held against the host.
func Hopeless(items []Item) error {
	var errs []error
	for _, item := range items {
		if item.Required && item.State == Missing {
			errs = append(errs, fmt.Errorf("agent cannot work here: %s: missing", item.Title))
		}
	}
	return errors.Join(errs...)
}
